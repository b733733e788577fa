// Package certs provides the certificate of the webhook server: a self-managed one, whose CA is written into the
// caBundle of the webhook configurations, or one from files.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// Source provides the serving certificate. GetCertificate is for tls.Config.
type Source interface {
	GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// Start renews the certificate until the context ends.
	Start(ctx context.Context) error
	// Checks returns the readiness checks, by name.
	Checks() map[string]func() error
	// Expiry returns when the serving certificate expires; zero without one.
	Expiry() time.Time
}

// errNoCertificate is the error before the first certificate.
var errNoCertificate = errors.New("there is no serving certificate yet")

// Files provides the certificate of a pair of files, and reloads them when they change.
type Files struct {
	watcher *certwatcher.CertWatcher
	now     func() time.Time
}

// NewFiles reads the files. Its error names the one that is missing or invalid.
func NewFiles(certFile, keyFile string) (*Files, error) {
	w, err := certwatcher.New(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate %s and its key %s: %w", certFile, keyFile, err)
	}
	return &Files{watcher: w, now: time.Now}, nil
}

// GetCertificate implements Source.
func (f *Files) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.watcher.GetCertificate(hello) //nolint:wrapcheck // the error is for crypto/tls
}

// Start implements Source.
func (f *Files) Start(ctx context.Context) error {
	if err := f.watcher.Start(ctx); err != nil {
		return fmt.Errorf("watching the certificate files: %w", err)
	}
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica needs a certificate.
func (f *Files) NeedLeaderElection() bool { return false }

// Checks implements Source. It does not check the CA, which belongs to whoever writes the files.
func (f *Files) Checks() map[string]func() error {
	return map[string]func() error{"certificate": func() error { return valid(f.GetCertificate, f.now()) }}
}

// Expiry implements Source.
func (f *Files) Expiry() time.Time { return expiry(f.GetCertificate(nil)) }

func expiry(c *tls.Certificate, err error) time.Time {
	if err != nil || c == nil {
		return time.Time{}
	}
	leaf, err := leafOf(c)
	if err != nil {
		return time.Time{}
	}
	return leaf.NotAfter
}

// valid checks that the serving certificate is valid, as far as the clocks of API servers and of whoever issued it may differ.
func valid(get func(*tls.ClientHelloInfo) (*tls.Certificate, error), now time.Time) error {
	c, err := get(nil)
	if err != nil || c == nil {
		return errNoCertificate
	}
	leaf, err := leafOf(c)
	switch {
	case err != nil:
		return err
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the serving certificate expired at %s", leaf.NotAfter.Format(time.RFC3339))
	case now.Add(maxClockSkew).Before(leaf.NotBefore):
		return fmt.Errorf("the serving certificate is not valid until %s; check the clocks of the nodes", leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

func leafOf(c *tls.Certificate) (*x509.Certificate, error) {
	if c.Leaf != nil {
		return c.Leaf, nil
	}
	if len(c.Certificate) == 0 {
		return nil, errNoCertificate
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("reading the serving certificate: %w", err)
	}
	return leaf, nil
}
