package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// client issues a client certificate. edit changes the template; nil for no change.
func client(t *testing.T, ca *pair, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kube-apiserver"}, DNSNames: []string{"api.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if edit != nil {
		edit(template)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newCA(t *testing.T, name string) pair {
	t.Helper()
	return issue(t, name, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), nil)
}

func writeCA(t *testing.T, cas ...pair) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	var data []byte
	for _, ca := range cas {
		data = append(data, ca.pem()...)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestClients_Refuse(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	path := writeCA(t, ours)
	good := client(t, &ours, nil)
	for name, tc := range map[string]struct {
		names []string
		chain []*x509.Certificate
		want  Refusal
	}{
		"none":                     {nil, nil, NoCertificate},
		"of the CA":                {nil, []*x509.Certificate{good}, ""},
		"of another CA":            {nil, []*x509.Certificate{client(t, &theirs, nil)}, Untrusted},
		"of another CA beside it":  {nil, []*x509.Certificate{client(t, &theirs, nil), theirs.cert}, Untrusted},
		"another's before the own": {nil, []*x509.Certificate{client(t, &theirs, nil), good}, Untrusted},
		"expired": {nil, []*x509.Certificate{client(t, &ours, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		})}, Untrusted},
		"of a server": {nil, []*x509.Certificate{client(t, &ours, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})}, Untrusted},
		"too many":                      {nil, slices.Repeat([]*x509.Certificate{good}, maxChain+1), Untrusted},
		"with an accepted common name":  {[]string{"other", "kube-apiserver"}, []*x509.Certificate{good}, ""},
		"with an accepted DNS name":     {[]string{"api.example.com"}, []*x509.Certificate{good}, ""},
		"with another name":             {[]string{"kube-apiserver2", "example.com"}, []*x509.Certificate{good}, OtherName},
		"of another CA with that name":  {[]string{"kube-apiserver"}, []*x509.Certificate{client(t, &theirs, nil)}, Untrusted},
		"without names":                 {[]string{"kube-apiserver"}, []*x509.Certificate{client(t, &ours, noNames)}, OtherName},
		"without names, the name empty": {[]string{"x"}, []*x509.Certificate{client(t, &ours, noNames)}, OtherName},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := NewClients(path, tc.names)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Refuse(&tls.ConnectionState{PeerCertificates: tc.chain}); got != tc.want {
				t.Errorf("refusal %q, want %q", got, tc.want)
			}
		})
	}
	c, err := NewClients(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Refuse(nil); got != NoCertificate {
		t.Errorf("refusal %q of a connection without TLS, want %q", got, NoCertificate)
	}
}

func noNames(c *x509.Certificate) { c.Subject.CommonName, c.DNSNames = "", nil }

// A changed CA counts for connections that are open: the state of the connection stays the same.
func TestClients_ReloadsTheCA(t *testing.T) {
	before, after := newCA(t, "before"), newCA(t, "after")
	path := writeCA(t, before)
	c, err := NewClients(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Start(t.Context()) }()
	old := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{client(t, &before, nil)}}
	recent := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{client(t, &after, nil)}}
	if got := c.Refuse(old); got != "" {
		t.Fatalf("refusal %q before the change", got)
	}
	// As the kubelet updates a mounted ConfigMap: another file in the place of the first.
	next := writeCA(t, after)
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	for c.Refuse(recent) != "" {
		select {
		case <-t.Context().Done():
			t.Fatal("the CA was not reloaded")
		case err := <-done:
			t.Fatalf("the reload ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if got := c.Refuse(old); got != Untrusted {
		t.Errorf("refusal %q of the old CA, want %q", got, Untrusted)
	}
	// A file that is no CA leaves the last one in force.
	if err := os.WriteFile(path, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.ca.RunOnce(t.Context()); err == nil {
		t.Error("a file without a CA was loaded")
	}
	if got := c.Refuse(recent); got != "" {
		t.Errorf("refusal %q after a file that is no CA", got)
	}
}
