package webhook

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// maxConnections is the number of connections above which one is closed for each that is accepted. One takes some 40 KiB.
// Five API servers with 100 concurrent writes each stay below it.
const maxConnections = 512

// connections are the open connections of the webhook server. If there are too many, it closes the oldest one without a
// request of the host that has the most: a client that opens many connections closes its own, and does not keep the API
// server out.
type connections struct {
	max int

	mu    sync.Mutex
	hosts map[string]map[net.Conn]connection
	count int
}

// connection is the state of a connection.
type connection struct {
	// waiting is set while the connection has no request: before the first one, and between two.
	waiting bool
	since   time.Time
}

func newConnections() *connections {
	return &connections{max: maxConnections, hosts: map[string]map[net.Conn]connection{}}
}

// limit returns a listener that accepts no connection while a quarter more than the limit are open: requests are running
// on all of them.
func (c *connections) limit(l net.Listener) net.Listener {
	return netutil.LimitListener(l, c.max+c.max/4)
}

// changed is the ConnState callback of http.Server.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	host := hostOf(conn)
	var victim net.Conn
	c.mu.Lock()
	switch state {
	case http.StateNew, http.StateIdle, http.StateActive:
		of := c.hosts[host]
		if of == nil {
			of = map[net.Conn]connection{}
			c.hosts[host] = of
		}
		if _, ok := of[conn]; !ok {
			c.count++
		}
		of[conn] = connection{waiting: state != http.StateActive, since: time.Now()}
		if state == http.StateNew && c.count > c.max {
			victim = c.victim(conn)
		}
	case http.StateClosed, http.StateHijacked:
		c.remove(host, conn)
	}
	if victim != nil {
		c.remove(hostOf(victim), victim)
	}
	c.mu.Unlock()
	if t, ok := victim.(*tls.Conn); ok {
		victim = t.NetConn() // closing a TLS connection may wait for its client
	}
	if victim != nil {
		_ = victim.Close()
	}
}

// remove removes a connection. The mutex is held.
func (c *connections) remove(host string, conn net.Conn) {
	of := c.hosts[host]
	if _, ok := of[conn]; !ok {
		return
	}
	c.count--
	if delete(of, conn); len(of) == 0 {
		delete(c.hosts, host)
	}
}

// victim returns the connection to close: of the host with the most connections, the one that has waited longest for a
// request, but not the new one unless there is no other; nil if all of them have a request. The mutex is held.
func (c *connections) victim(newest net.Conn) net.Conn {
	var most map[net.Conn]connection
	for _, of := range c.hosts {
		if len(of) > len(most) {
			most = of
		}
	}
	var victim net.Conn
	for conn, state := range most {
		if conn != newest && state.waiting && (victim == nil || state.since.Before(most[victim].since)) {
			victim = conn
		}
	}
	return victim
}

// size returns the number of open connections.
func (c *connections) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// hostOf returns the address of a connection's peer without the port.
func hostOf(conn net.Conn) string {
	address := conn.RemoteAddr().String()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
