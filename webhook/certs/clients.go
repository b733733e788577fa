package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// Refusal is why a client is not answered; empty for one that is.
type Refusal string

// The refusals.
const (
	// NoCertificate: the client presented no certificate.
	NoCertificate Refusal = "no_certificate"
	// Untrusted: the certificate is expired, not for client authentication, or not issued by the CA.
	Untrusted Refusal = "untrusted"
	// OtherName: the CA issued the certificate to somebody else.
	OtherName Refusal = "other_name"
)

// maxChain limits the certificates that a client may present. An API server has its own and few intermediates.
const maxChain = 8

// Clients authenticates clients by their certificate. It is the counterpart of the kubeconfig in an API server's
// AdmissionConfiguration.
type Clients struct {
	ca    *dynamiccertificates.DynamicFileCAContent
	names []string
}

// NewClients reads the file with the CA of the clients, in PEM. With names, the common name or a DNS name of the
// certificate must be one of them; without, every certificate of the CA is accepted.
func NewClients(caFile string, names []string) (*Clients, error) {
	ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca", caFile)
	if err != nil {
		return nil, fmt.Errorf("reading the client CA %s: %w", caFile, err)
	}
	return &Clients{ca: ca, names: slices.Clone(names)}, nil
}

// Start reloads the CA when its file changes, until the context ends. A file that cannot be used leaves the last CA in
// force.
func (c *Clients) Start(ctx context.Context) error {
	c.ca.Run(ctx, 1)
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica authenticates its clients.
func (*Clients) NeedLeaderElection() bool { return false }

// Refuse returns why a client is not answered; empty if it is authenticated. The state is that of its connection; TLS
// has proved that the client has the key of the certificate. The chain is verified for every request, so that an
// expired certificate and a CA that was removed count at once, on open connections, too.
func (c *Clients) Refuse(state *tls.ConnectionState) Refusal {
	if state == nil || len(state.PeerCertificates) == 0 {
		return NoCertificate
	}
	if len(state.PeerCertificates) > maxChain {
		return Untrusted
	}
	options, ok := c.ca.VerifyOptions()
	if !ok {
		return Untrusted
	}
	options.Intermediates = x509.NewCertPool()
	for _, intermediate := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(intermediate)
	}
	leaf := state.PeerCertificates[0]
	if _, err := leaf.Verify(options); err != nil {
		return Untrusted
	}
	if len(c.names) > 0 && !slices.Contains(c.names, leaf.Subject.CommonName) &&
		!slices.ContainsFunc(leaf.DNSNames, func(name string) bool { return slices.Contains(c.names, name) }) {
		return OtherName
	}
	return ""
}
