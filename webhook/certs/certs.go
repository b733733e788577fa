// Package certs gives the webhook server its certificate: one that it signs itself and whose CA it publishes in the webhook configurations,
// or one from files that somebody else renews.
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

// Source is where the serving certificate comes from. GetCertificate is for tls.Config.
type Source interface {
	GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// Start renews the certificate until the context ends.
	Start(ctx context.Context) error
	// Checks are conditions of being ready, by name.
	Checks() map[string]func() error
	// Expiry is when the certificate that is being served expires; zero without one.
	Expiry() time.Time
}

// errNone says that there is no certificate yet.
var errNone = errors.New("there is no serving certificate yet")

// Files serves the certificate in a pair of files, and reads them again when they change.
type Files struct {
	watcher *certwatcher.CertWatcher
	now     func() time.Time
}

// NewFiles reads the files. The error names the one that is missing or wrong.
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

// NeedLeaderElection tells the manager that every replica needs its certificate.
func (f *Files) NeedLeaderElection() bool { return false }

// Checks implements Source. The CA is whoever's business the files are.
func (f *Files) Checks() map[string]func() error {
	return map[string]func() error{"certificate": func() error { return valid(f.Expiry(), f.now()) }}
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

func valid(expiry, now time.Time) error {
	switch {
	case expiry.IsZero():
		return errNone
	case now.After(expiry):
		return fmt.Errorf("the serving certificate expired at %s", expiry.Format(time.RFC3339))
	}
	return nil
}

func leafOf(c *tls.Certificate) (*x509.Certificate, error) {
	if c.Leaf != nil {
		return c.Leaf, nil
	}
	if len(c.Certificate) == 0 {
		return nil, errNone
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("reading the serving certificate: %w", err)
	}
	return leaf, nil
}
