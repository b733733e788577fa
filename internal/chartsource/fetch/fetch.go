// Package fetch makes HTTP requests to Flux's sources: bounded in size and time, with the credentials of one source,
// and protected against requests to internal addresses that a source leads to (SSRF).
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

	"github.com/opencontainers/go-digest"
)

// maxRedirects bounds the redirects of one request.
const maxRedirects = 5

// ErrRefused is the error of a request that is not made because of its target.
var ErrRefused = errors.New("refused")

// StatusError is the error of a response other than 200 OK.
type StatusError struct {
	// URL is the address without credentials and query.
	URL string
	// Code is the HTTP status.
	Code int
}

// Error returns the status and what may be wrong.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s returned %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden {
		text += ": the source's credentials are missing or rejected"
	}
	return text
}

// TransportError is the error of a request without a complete response.
type TransportError struct {
	// URL is the address without credentials and query.
	URL string
	// Err may quote what the host sent.
	Err error
}

// Error returns the address and the reason.
func (e *TransportError) Error() string { return fmt.Sprintf("fetching %s: %v", e.URL, e.Err) }

// Unwrap returns the reason.
func (e *TransportError) Unwrap() error { return e.Err }

// Coarse returns an error for users who may create sources, but are not to find out with them which hosts and ports there
// are, and what listens there: without the reason of a TransportError, and prefixed with what is fetched. Other errors
// are unchanged.
func Coarse(what string, err error) error {
	if failed, ok := errors.AsType[*TransportError](err); ok && !errors.Is(err, ErrRefused) {
		return fmt.Errorf("%s: %s cannot be fetched", what, failed.URL)
	}
	return err
}

// Credentials are the credentials of one source.
type Credentials struct {
	Username, Password string
	// PassCredentials also sends them to other hosts than the source's.
	PassCredentials bool
	// TLS is the configuration for https; nil for the system's.
	TLS *tls.Config
	// Proxy is the URL of the proxy to use; nil for that of the environment.
	Proxy *url.URL
}

// TLSConfig returns a configuration from PEM blocks; each may be empty. A certificate needs its key. The authority's
// certificates are trusted in addition to the system's. The error quotes none of them.
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
			return nil, errors.New("the certificate authority contains no certificate")
		}
		cfg.RootCAs = pool
	}
	return cfg, nil
}

// Client fetches on behalf of one source. It is safe for concurrent use. Close releases its connections.
type Client struct {
	source      *url.URL
	credentials Credentials
	// direct connects to the source's own host, foreign to others.
	direct, foreign *http.Transport
}

// NewClient returns a client for the source at an http or https URL. Requests to other hosts, due to a redirect or to a
// URL in an index, must not lead to loopback or link-local addresses unless allowLoopback is set. Requests to the
// source itself must not lead to link-local addresses.
func NewClient(source string, c Credentials, allowLoopback bool) (*Client, error) {
	u, err := parse(source)
	if err != nil {
		return nil, err
	}
	return &Client{
		source:      u,
		credentials: c,
		direct:      transport(c, func(ip netip.Addr) bool { return allowLoopback || !linkLocal(ip) }),
		foreign: transport(c, func(ip netip.Addr) bool {
			return allowLoopback || !internal(ip)
		}),
	}, nil
}

func parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("the URL is invalid") // err quotes it, credentials included
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%w: %s is not an http or https URL", ErrRefused, RedactedURL(u))
	}
	return u, nil
}

// RedactedURL returns a URL without credentials and query, for messages.
func RedactedURL(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return c.String()
}

func transport(c Credentials, allowed func(netip.Addr) bool) *http.Transport {
	d := &net.Dialer{
		Timeout: 10 * time.Second,
		// Control checks the resolved address, so that no DNS name can hide it.
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: the address %s is invalid", ErrRefused, address)
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
			// The dialer only checks the proxy's address, so check the request's target here.
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

// resolveTimeout bounds resolving the name of a host that is requested through a proxy.
const resolveTimeout = 2 * time.Second

// checkHost returns an error for a host whose addresses are not allowed. A name that only the proxy can resolve is
// allowed.
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

// Close closes idle connections. Contexts end running requests.
func (c *Client) Close() {
	c.direct.CloseIdleConnections()
	c.foreign.CloseIdleConnections()
}

// Get fetches a URL, following redirects, and returns the body when it has at most limit bytes.
func (c *Client) Get(ctx context.Context, raw string, limit int64) (body []byte, err error) {
	err = c.Read(ctx, raw, limit, func(r io.Reader) error {
		body, err = io.ReadAll(r)
		return err
	})
	return body, err
}

// Read fetches a URL, following redirects, and passes the body to a function. A body of more than limit bytes is an
// error of the reader. The error of the function is returned.
func (c *Client) Read(ctx context.Context, raw string, limit int64, read func(io.Reader) error) error {
	u, err := parse(raw)
	if err != nil {
		return err
	}
	for range maxRedirects + 1 {
		next, err := c.once(ctx, u, limit, read)
		if err != nil || next == nil {
			return err
		}
		if u.Scheme == "https" && next.Scheme == "http" {
			return fmt.Errorf("%w: %s redirects from https to http", ErrRefused, RedactedURL(u))
		}
		u = next
	}
	return fmt.Errorf("%s redirects more than %d times", RedactedURL(u), maxRedirects)
}

// ReadVerified is Read of what has a digest, which is checked at the end. The function may stop early.
func (c *Client) ReadVerified(ctx context.Context, raw string, limit int64, want digest.Digest, read func(io.Reader) error) error {
	return c.Read(ctx, raw, limit, func(r io.Reader) error {
		hash := want.Algorithm().Hash()
		r = io.TeeReader(r, hash)
		err := read(r)
		if _, incomplete := io.Copy(io.Discard, r); incomplete != nil {
			return incomplete
		}
		if actual := digest.NewDigest(want.Algorithm(), hash); actual != want {
			return fmt.Errorf("the artifact has the digest %s, want %s", actual, want)
		}
		return err
	})
}

// body reads a response's body within a limit.
type body struct {
	r     io.Reader
	url   *url.URL
	limit int64
	n     int64
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.n += int64(n); b.n > b.limit {
		return 0, fmt.Errorf("%s has more than %d bytes", RedactedURL(b.url), b.limit)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = &TransportError{URL: RedactedURL(b.url), Err: err}
	}
	return n, err
}

// HTTP returns a client for a library with its own protocol over HTTP. It has the same limits on the targets of
// requests, but no credentials: the library sends these.
func (c *Client) HTTP() *http.Client {
	return &http.Client{
		Transport: targetTransport{c},
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

// targetTransport sends each request with the transport for its target.
type targetTransport struct{ c *Client }

// RoundTrip implements http.RoundTripper.
func (t targetTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%w: %s is not an http or https URL", ErrRefused, RedactedURL(req.URL))
	}
	if t.c.own(req.URL) {
		return roundTrip(t.c.direct, req)
	}
	return roundTrip(t.c.foreign, req)
}

type headerTimeoutKey struct{}

// errNoHeader is the cause of a request that ends because of WithHeaderTimeout.
var errNoHeader = fmt.Errorf("no response in time: %w", context.DeadlineExceeded)

// WithHeaderTimeout returns a context with which requests fail unless the header of the response is there after d.
func WithHeaderTimeout(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, headerTimeoutKey{}, d)
}

// roundTrip makes one request within the timeout of its context. The error is a *TransportError.
func roundTrip(t *http.Transport, req *http.Request) (*http.Response, error) {
	resp, err := roundTripInTime(t, req)
	if err != nil {
		return nil, &TransportError{URL: RedactedURL(req.URL), Err: err}
	}
	return resp, nil
}

func roundTripInTime(t *http.Transport, req *http.Request) (*http.Response, error) {
	d, ok := req.Context().Value(headerTimeoutKey{}).(time.Duration)
	if !ok {
		return t.RoundTrip(req)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(d, func() { cancel(errNoHeader) })
	resp, err := t.RoundTrip(req.WithContext(ctx))
	if !timer.Stop() && err == nil {
		err = errors.Join(errNoHeader, resp.Body.Close())
	}
	if err != nil {
		cancel(nil)
		if errors.Is(context.Cause(ctx), errNoHeader) {
			return nil, errNoHeader
		}
		return nil, err
	}
	resp.Body = cancelledBody{resp.Body, func() { cancel(nil) }}
	return resp, nil
}

// cancelledBody releases the context of a response with its body.
type cancelledBody struct {
	io.ReadCloser
	cancel func()
}

// Close implements io.Closer.
func (b cancelledBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// own reports whether a URL is on the source's own host.
func (c *Client) own(u *url.URL) bool { return u.Scheme == c.source.Scheme && u.Host == c.source.Host }

// once makes one request. It passes the body to read, or returns the URL of a redirect.
func (c *Client) once(ctx context.Context, u *url.URL, limit int64, read func(io.Reader) error) (next *url.URL, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.New("the request is invalid")
	}
	req.Header.Set("User-Agent", "flux-admission")
	t := c.foreign
	own := c.own(u)
	if own {
		t = c.direct
	}
	if own || c.credentials.PassCredentials {
		c.authorize(req)
	}
	resp, err := roundTrip(t, req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		location, err := resp.Location()
		if err != nil {
			return nil, fmt.Errorf("%s redirects without a location", RedactedURL(u))
		}
		next, err := parse(location.String())
		return next, err
	default:
		return nil, &StatusError{URL: RedactedURL(u), Code: resp.StatusCode}
	}
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", RedactedURL(u), resp.ContentLength, limit)
	}
	return nil, read(&body{r: resp.Body, url: u, limit: limit})
}

func (c *Client) authorize(req *http.Request) {
	if c.credentials.Username != "" || c.credentials.Password != "" {
		req.SetBasicAuth(c.credentials.Username, c.credentials.Password)
	}
}
