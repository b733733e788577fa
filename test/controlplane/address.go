package controlplane

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// FreeAddress returns a loopback address that nothing listened on a moment ago. Its port is below those that outgoing connections get, which
// could take it before somebody listens there.
func FreeAddress() (string, error) {
	const first, last, attempts = 20000, 32767, 100
	var failed error
	for range attempts {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first+1))) //nolint:gosec // any port will do
		if err == nil {
			return l.Addr().String(), l.Close()
		}
		failed = err
	}
	return "", fmt.Errorf("finding a free port after %d attempts: %w", attempts, failed)
}
