// Package fetch makes the outgoing HTTP requests of the gate: bounded in size and time, with the credentials of one Flux source, and to
// nothing but what that source names.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// maxRedirects bounds how often a request is sent on.
const maxRedirects = 5

// ErrRefused is the error of a request that is not made, because of where it leads.
var ErrRefused = errors.New("refused")

// StatusError is the error of an answer other than 200 OK.
type StatusError struct {
	// URL is the address without credentials and query.
	URL string
	// Code is the HTTP status.
	Code int
}

// Error says what the server answered, and what to look at.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s answered %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden {
		text += ": the source's credentials are missing or not accepted"
	}
	return text
}

// Credentials are those of one source.
type Credentials struct {
	Username, Password string
	// Token is sent as a bearer token; it takes precedence.
	Token string
	// Everywhere sends them also to other hosts than the source's.
	Everywhere bool
	// TLS is the configuration for https; nil for the system's.
	TLS *tls.Config
	// Proxy is the URL of the proxy to use; nil for that of the environment.
	Proxy *url.URL
}

// TLSConfig makes a configuration of PEM blocks; each may be empty. A certificate needs its key. The authority's certificates are trusted
// beside the system's. The error quotes none of them.
func TLSConfig(cert, key, authority []byte) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(cert) > 0 || len(key) > 0 {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, errors.New("the client certificate and its key do not form a pair")
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if len(authority) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(authority) {
			return nil, errors.New("the certificate authority holds no certificate")
		}
		cfg.RootCAs = pool
	}
	return cfg, nil
}

// Client fetches on behalf of one source. It is safe for concurrent use. Close releases its connections.
type Client struct {
	source      *url.URL
	credentials Credentials
	// direct reaches the source's own host; foreign reaches where it sends requests on to.
	direct, foreign *http.Transport
}

// NewClient returns a client for the source at an http or https URL. Whatever the source sends requests on to, by a redirect or by a URL in
// an index, must not be a loopback or link-local address unless local allows it; the source itself must not be link-local.
func NewClient(source string, c Credentials, local bool) (*Client, error) {
	u, err := parse(source)
	if err != nil {
		return nil, err
	}
	return &Client{
		source:      u,
		credentials: c,
		direct:      transport(c, func(ip netip.Addr) bool { return local || !linkLocal(ip) }),
		foreign:     transport(c, func(ip netip.Addr) bool { return local || !linkLocal(ip) && !ip.IsLoopback() && !ip.IsUnspecified() }),
	}, nil
}

func parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("the URL cannot be read") // the error would quote it, credentials included
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%w: %s is no http or https URL", ErrRefused, Shown(u))
	}
	return u, nil
}

// Shown returns a URL as it may appear in a message: without credentials and query.
func Shown(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return c.String()
}

func linkLocal(ip netip.Addr) bool {
	// fd00:ec2::254 is a metadata service's address outside of the link-local range.
	return ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip == netip.MustParseAddr("fd00:ec2::254")
}

func transport(c Credentials, allowed func(netip.Addr) bool) *http.Transport {
	d := &net.Dialer{
		Timeout: 10 * time.Second,
		// The address is looked at after it was resolved, so that no name can hide it.
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: the address %s cannot be read", ErrRefused, address)
			}
			if !allowed(ap.Addr().Unmap()) {
				return fmt.Errorf("%w: %s is a link-local or loopback address", ErrRefused, ap.Addr())
			}
			return nil
		},
	}
	proxy := http.ProxyFromEnvironment
	if c.Proxy != nil {
		proxy = http.ProxyURL(c.Proxy)
	}
	return &http.Transport{
		Proxy: func(req *http.Request) (*url.URL, error) {
			through, err := proxy(req)
			if err != nil || through == nil {
				return through, err
			}
			// The dialer sees the proxy's address only, so where the request leads is looked at here.
			return through, checkHost(req.Context(), req.URL.Hostname(), allowed)
		},
		DialContext:            d.DialContext,
		TLSClientConfig:        c.TLS,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		MaxResponseHeaderBytes: 1 << 20,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        30 * time.Second,
		ForceAttemptHTTP2:      true,
	}
}

// resolveTimeout bounds the look at a name that a proxy is to be asked for.
const resolveTimeout = 2 * time.Second

// checkHost refuses a host whose addresses are not allowed. A name that only the proxy can resolve is left to it.
func checkHost(ctx context.Context, host string, allowed func(netip.Addr) bool) error {
	addresses := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		addresses = append(addresses, ip)
	} else {
		ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
		defer cancel()
		if found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host); err == nil {
			addresses = found
		}
	}
	for _, ip := range addresses {
		if !allowed(ip.Unmap().WithZone("")) {
			return fmt.Errorf("%w: %s is a link-local or loopback address", ErrRefused, ip)
		}
	}
	return nil
}

// Close closes idle connections. Requests under way are ended by their contexts.
func (c *Client) Close() {
	c.direct.CloseIdleConnections()
	c.foreign.CloseIdleConnections()
}

// Get fetches a URL, following redirects, and returns the body when it has at most limit bytes.
func (c *Client) Get(ctx context.Context, raw string, limit int64) ([]byte, error) {
	u, err := parse(raw)
	if err != nil {
		return nil, err
	}
	for range maxRedirects + 1 {
		body, next, err := c.once(ctx, u, limit)
		if err != nil || next == nil {
			return body, err
		}
		if u.Scheme == "https" && next.Scheme == "http" {
			return nil, fmt.Errorf("%w: %s redirects from https to http", ErrRefused, Shown(u))
		}
		u = next
	}
	return nil, fmt.Errorf("%s redirects more than %d times", Shown(u), maxRedirects)
}

// HTTP returns a client for a library that speaks a protocol of its own over HTTP: with the same limits on where requests may lead, and without
// the credentials, which the library sends where they belong.
func (c *Client) HTTP() *http.Client {
	return &http.Client{
		Transport: chooser{c},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("redirected more than %d times", maxRedirects)
			}
			if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme == "http" {
				return fmt.Errorf("%w: redirected from https to http", ErrRefused)
			}
			return nil
		},
	}
}

// chooser sends each request by the transport that fits where it leads.
type chooser struct{ c *Client }

// RoundTrip implements http.RoundTripper.
func (t chooser) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%w: %s is no http or https URL", ErrRefused, Shown(req.URL))
	}
	if t.c.own(req.URL) {
		return t.c.direct.RoundTrip(req)
	}
	return t.c.foreign.RoundTrip(req)
}

// own tells whether a URL is of the source's own host.
func (c *Client) own(u *url.URL) bool { return u.Scheme == c.source.Scheme && u.Host == c.source.Host }

func (c *Client) once(ctx context.Context, u *url.URL, limit int64) (body []byte, next *url.URL, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, errors.New("the request cannot be made")
	}
	req.Header.Set("User-Agent", "flux-admission")
	t := c.foreign
	own := c.own(u)
	if own {
		t = c.direct
	}
	if own || c.credentials.Everywhere {
		c.authorize(req)
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, nil, fmt.Errorf("fetching %s: %w", Shown(u), err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		location, err := resp.Location()
		if err != nil {
			return nil, nil, fmt.Errorf("%s redirects without saying where to", Shown(u))
		}
		next, err := parse(location.String())
		return nil, next, err
	default:
		return nil, nil, &StatusError{URL: Shown(u), Code: resp.StatusCode}
	}
	if resp.ContentLength > limit {
		return nil, nil, fmt.Errorf("%s has %d bytes, and %d are the most that is read", Shown(u), resp.ContentLength, limit)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", Shown(u), err)
	}
	if int64(len(body)) > limit {
		return nil, nil, fmt.Errorf("%s has more than %d bytes", Shown(u), limit)
	}
	return body, nil, nil
}

func (c *Client) authorize(req *http.Request) {
	switch {
	case c.credentials.Token != "":
		req.Header.Set("Authorization", "Bearer "+c.credentials.Token)
	case c.credentials.Username != "" || c.credentials.Password != "":
		req.SetBasicAuth(c.credentials.Username, c.credentials.Password)
	}
}
