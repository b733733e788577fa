package env

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// probeEvery is how often the load balancer probes the webhook servers.
const probeEvery = 100 * time.Millisecond

// loadBalancer forwards connections to the webhook servers that are ready, in turn, as a Service does: the webhook
// server ends TLS, and an open connection stays open.
type loadBalancer struct {
	listener net.Listener
	backends []*Webhook
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex
	ready map[*Webhook]bool
	next  int
}

func newLoadBalancer(backends []*Webhook) (*loadBalancer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the load balancer: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &loadBalancer{listener: l, backends: backends, cancel: cancel, ready: map[*Webhook]bool{}}
	b.running.Go(b.accept)
	b.running.Go(func() { b.probe(ctx) })
	return b, nil
}

func (b *loadBalancer) address() string { return b.listener.Addr().String() }

func (b *loadBalancer) close() error {
	b.cancel()
	err := b.listener.Close()
	b.running.Wait()
	return err
}

// wait waits until every webhook server is ready.
func (b *loadBalancer) wait(ctx context.Context) error {
	err := wait.PollUntilContextTimeout(ctx, pollEvery, readyTimeout, true, func(context.Context) (bool, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, w := range b.backends {
			if !b.ready[w] {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the load balancer: %w", err)
	}
	return nil
}

// probe reads the readiness of each webhook server, as a kubelet does.
func (b *loadBalancer) probe(ctx context.Context) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		for _, w := range b.backends {
			code, _, err := get(ctx, "http://"+w.Health+"/readyz")
			b.mu.Lock()
			b.ready[w] = err == nil && code == http.StatusOK
			b.mu.Unlock()
		}
	}, probeEvery)
}

func (b *loadBalancer) pick() (address string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.backends {
		b.next = (b.next + 1) % len(b.backends)
		if w := b.backends[b.next]; b.ready[w] {
			return w.Address, true
		}
	}
	return "", false
}

func (b *loadBalancer) accept() {
	for {
		conn, err := b.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		go b.forward(conn)
	}
}

func (b *loadBalancer) forward(conn net.Conn) {
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
}
