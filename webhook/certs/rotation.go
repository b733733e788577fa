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
	// propagationDelay is how long a CA must be in the caBundle before a certificate that it signed is served, so
	// that every API server has read it.
	propagationDelay = 10 * time.Second
	// minPropagationDelay applies if the serving certificate expires within propagationDelay.
	minPropagationDelay = time.Second
)

// rotation selects the certificate to serve while certificates are renewed. The signer issues a certificate as soon as
// there is a new CA, but an API server that does not trust that CA yet would reject it: until then the old certificate
// is served.
type rotation struct {
	newest func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// trustedSince returns since when the caBundle has held the CA that signed the certificate.
	trustedSince func(leaf *x509.Certificate) (since time.Time, ok bool)
	now          func() time.Time

	mu      sync.Mutex
	serving *tls.Certificate
}

// GetCertificate returns the newest certificate whose CA the API servers trust, for tls.Config.
func (r *rotation) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	newest, err := r.newest(hello)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && r.serving == nil:
		return nil, fmt.Errorf("%w: %w", errNoCertificate, err)
	case err != nil || newest == r.serving:
		return r.serving, nil
	case r.serving == nil || r.trusted(newest):
		r.serving = newest
	}
	return r.serving, nil
}

// trusted reports whether a certificate can replace the serving one.
func (r *rotation) trusted(newest *tls.Certificate) bool {
	now := r.now()
	old := expiry(r.serving, nil)
	if now.After(old) {
		return true
	}
	leaf, err := leafOf(newest)
	if err != nil {
		return false
	}
	since, ok := r.trustedSince(leaf)
	if !ok {
		return false
	}
	age := now.Sub(since)
	return age >= propagationDelay || age >= minPropagationDelay && now.Add(propagationDelay).After(old)
}

// certificateReady checks that the serving certificate is valid.
func (r *rotation) certificateReady() error {
	return valid(r.GetCertificate, r.now())
}

// caReady checks that the API servers trust the serving certificate.
func (r *rotation) caReady() error {
	c, err := r.GetCertificate(nil)
	if err != nil {
		return err
	}
	leaf, err := leafOf(c)
	if err != nil {
		return err
	}
	since, ok := r.trustedSince(leaf)
	if !ok || r.now().Sub(since) < minPropagationDelay {
		return errors.New("the caBundle does not hold the CA of the serving certificate yet")
	}
	return nil
}
