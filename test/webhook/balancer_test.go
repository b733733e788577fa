package webhook_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/flux-admission/flux-admission/test/env"
)

// balancer passes connections on to gates that are ready, in turn, as a Service does: TLS ends in the gate, and a connection that is open stays.
type balancer struct {
	listener net.Listener

	mu       sync.Mutex
	backends []*backend
	next     int
}

type backend struct {
	gate  *env.Gate
	ready bool
}

func newBalancer() (*balancer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{listener: l}
	go b.accept()
	go b.probe()
	return b, nil
}

func (b *balancer) address() string { return b.listener.Addr().String() }

func (b *balancer) add(g *env.Gate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends = append(b.backends, &backend{gate: g})
}

// replace puts another gate in the place of one that was stopped.
func (b *balancer) replace(i int, g *env.Gate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends[i] = &backend{gate: g}
}

// wait waits until n gates are ready.
func (b *balancer) wait(ctx context.Context, n int) error {
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		ready := 0
		for _, x := range b.backends {
			if x.ready {
				ready++
			}
		}
		return ready == n, nil
	})
}

// probe asks each gate for its readiness, as a kubelet does.
func (b *balancer) probe() {
	client := &http.Client{Timeout: time.Second}
	for {
		b.mu.Lock()
		backends := append([]*backend(nil), b.backends...)
		b.mu.Unlock()
		for _, x := range backends {
			resp, err := client.Get("http://" + x.gate.Health() + "/readyz")
			ready := err == nil && resp.StatusCode == http.StatusOK
			if err == nil {
				_ = resp.Body.Close()
			}
			b.mu.Lock()
			x.ready = ready
			b.mu.Unlock()
		}
		<-time.After(100 * time.Millisecond)
	}
}

func (b *balancer) pick() (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.backends {
		b.next = (b.next + 1) % len(b.backends)
		if x := b.backends[b.next]; x.ready {
			return x.gate.Address, true
		}
	}
	return "", false
}

func (b *balancer) accept() {
	for {
		conn, err := b.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		go func() {
			defer func() { _ = conn.Close() }()
			address, ok := b.pick()
			if !ok {
				return
			}
			to, err := net.Dial("tcp", address)
			if err != nil {
				return
			}
			defer func() { _ = to.Close() }()
			done := make(chan struct{}, 2)
			pipe := func(dst, src net.Conn) {
				_, _ = io.Copy(dst, src)
				if half, ok := dst.(*net.TCPConn); ok {
					_ = half.CloseWrite()
				}
				done <- struct{}{}
			}
			go pipe(to, conn)
			go pipe(conn, to)
			<-done
			<-done
		}()
	}
}
