package env

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"
)

// Proxy forwards connections to the API server, and can be made slow or cut. It does not see what TLS encrypts.
type Proxy struct {
	listener net.Listener
	target   string
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex
	delay time.Duration
	cut   bool
	open  map[net.Conn]struct{}
}

func newProxy(host string) (*Proxy, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the proxy: %w", err)
	}
	p := &Proxy{listener: l, target: u.Host, open: map[net.Conn]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.running.Go(p.accept)
	return p, nil
}

// Address is where it listens, as host:port.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Delay holds back everything that is sent, in both directions, for that long; 0 for no time.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Cut closes all connections and refuses new ones, until it is called with false.
func (p *Proxy) Cut(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = yes
	if yes {
		for c := range p.open {
			_ = c.Close()
		}
	}
}

func (p *Proxy) close() error {
	p.cancel()
	err := p.listener.Close()
	p.Cut(true)
	p.running.Wait()
	return err
}

// add registers an open connection, and closes it if connections are cut.
func (p *Proxy) add(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = struct{}{}
	if p.cut {
		_ = c.Close()
	}
}

func (p *Proxy) remove(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
	_ = c.Close()
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.running.Go(func() { p.forward(conn) })
		}
	}
}

func (p *Proxy) forward(conn net.Conn) {
	p.add(conn)
	defer p.remove(conn)
	to, err := (&net.Dialer{}).DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		return
	}
	p.add(to)
	defer p.remove(to)
	var both sync.WaitGroup
	both.Go(func() { p.copy(to, conn) })
	both.Go(func() { p.copy(conn, to) })
	both.Wait()
}

// copy forwards what one end sends, and then closes both directions.
func (p *Proxy) copy(dst, src net.Conn) {
	defer func() {
		_ = dst.Close()
		_ = src.Close()
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := src.Read(buffer)
		if n > 0 {
			p.mu.Lock()
			delay := p.delay
			p.mu.Unlock()
			if delay > 0 {
				select {
				case <-time.After(delay):
				case <-p.ctx.Done():
					return
				}
			}
			if _, err := dst.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
