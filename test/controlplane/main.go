package controlplane

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main runs a package's tests with one control plane for all of them and
// returns the exit code. use receives it before the first test. Use it as
//
//	func TestMain(m *testing.M) {
//		os.Exit(controlplane.Main(m, controlplane.Options{…}, func(cp *controlplane.ControlPlane) error {
//			plane = cp
//			return nil
//		}))
//	}
//
// go test ends a package after ten minutes, which a first build may take: run
// `go run ./test/controlplane/cmd/bench build` before.
func Main(m interface{ Run() int }, o Options, use func(*ControlPlane) error) int {
	if o.Progress == nil {
		o.Progress = os.Stderr
	}
	code, err := runMain(m, o, use)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func runMain(m interface{ Run() int }, o Options, use func(*ControlPlane) error) (code int, err error) {
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	cp, err := Start(ctx, o)
	// From here on an interrupt ends the tests at once; the leash ends the rest.
	release()
	if err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := cp.Stop(); stopErr != nil && err == nil {
			code, err = 1, stopErr
		}
	}()
	if err := use(cp); err != nil {
		return 1, err
	}
	return m.Run(), nil
}
