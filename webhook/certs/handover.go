package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// settle is how long a CA has to be published before a certificate signed by it takes over, so that every API server has seen it.
	settle = 10 * time.Second
	// minSettle is the least, when the certificate that is being served does not live longer.
	minSettle = time.Second
)

// handover decides which certificate is served while a new one takes over. The signer makes a new one as soon as there is a new CA, but an API
// server that does not know that CA yet would refuse it: until then the old one goes on.
type handover struct {
	newest func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// published tells since when the CA that signed the certificate has been published.
	published func(leaf *x509.Certificate) (since time.Time, ok bool)
	now       func() time.Time

	mu      sync.Mutex
	serving *tls.Certificate
}

// GetCertificate returns the newest certificate whose CA the API servers know, for tls.Config.
func (h *handover) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	newest, err := h.newest(hello)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil && h.serving == nil:
		return nil, fmt.Errorf("%w: %w", errNone, err)
	case err != nil || newest == h.serving:
		return h.serving, nil
	case h.serving == nil || h.trusted(newest):
		h.serving = newest
	}
	return h.serving, nil
}

// trusted tells whether a certificate may take over from the one being served.
func (h *handover) trusted(newest *tls.Certificate) bool {
	now := h.now()
	old := expiry(h.serving, nil)
	if now.After(old) {
		return true
	}
	leaf, err := leafOf(newest)
	if err != nil {
		return false
	}
	since, ok := h.published(leaf)
	if !ok {
		return false
	}
	age := now.Sub(since)
	return age >= settle || age >= minSettle && now.Add(settle).After(old)
}

// certificateReady is the check that what is served is valid.
func (h *handover) certificateReady() error {
	return valid(expiry(h.GetCertificate(nil)), h.now())
}

// caReady is the check that the API servers can trust what is served.
func (h *handover) caReady() error {
	c, err := h.GetCertificate(nil)
	if err != nil {
		return err
	}
	leaf, err := leafOf(c)
	if err != nil {
		return err
	}
	since, ok := h.published(leaf)
	if !ok || h.now().Sub(since) < minSettle {
		return errors.New("the CA of the serving certificate is not published yet")
	}
	return nil
}
