package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	cmtls "github.com/cert-manager/cert-manager/pkg/server/tls"
	"github.com/cert-manager/cert-manager/pkg/server/tls/authority"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Options say what the self-managed certificate is for and how long it lives.
type Options struct {
	// Config reaches the cluster that keeps the CA.
	Config *rest.Config
	// Namespace and Secret are where the CA and its key are kept, shared by all replicas.
	Namespace, Secret string
	// WebhookConfig is the name of the webhook configurations that the CA is published in; empty publishes it nowhere.
	WebhookConfig string
	// Names are the DNS names and IP addresses that clients use.
	Names []string
	// CADuration and LeafDuration are how long the CA and the certificate live; each is renewed after two thirds.
	CADuration, LeafDuration time.Duration
	// Published is told of every attempt to write the CA; nil for success.
	Published func(error)
}

// SelfManaged signs its own certificate with a CA kept in a Secret, renews both, and publishes the CA in the webhook configurations.
type SelfManaged struct {
	*handover
	source    *cmtls.DynamicSource
	publisher *publisher
}

// NewSelfManaged returns a source that does nothing before Start.
func NewSelfManaged(o Options) (*SelfManaged, error) {
	if o.LeafDuration <= 0 || o.CADuration < 2*o.LeafDuration {
		return nil, fmt.Errorf("a CA that lives %s cannot sign certificates that live %s: it must live at least twice as long", o.CADuration, o.LeafDuration)
	}
	if len(o.Names) == 0 {
		return nil, errors.New("the serving certificate needs a name")
	}
	client, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("making a client for the CA's Secret: %w", err)
	}
	s := &SelfManaged{source: &cmtls.DynamicSource{
		DNSNames: o.Names,
		Authority: named{&authority.DynamicAuthority{
			SecretNamespace: o.Namespace, SecretName: o.Secret, RESTConfig: o.Config, CommonName: "flux-admission-ca",
			SecretLabels: map[string]string{"app.kubernetes.io/name": "flux-admission", "app.kubernetes.io/part-of": "flux-admission"},
			CADuration:   o.CADuration, LeafDuration: o.LeafDuration,
		}},
	}}
	published := func(*x509.Certificate) (time.Time, bool) { return time.Time{}, true }
	if o.WebhookConfig != "" {
		s.publisher = &publisher{
			client: client, namespace: o.Namespace, secret: o.Secret, config: o.WebhookConfig, observe: o.Published, now: time.Now,
			problem: errors.New("the CA has not been published yet"),
		}
		published = s.publisher.since
	}
	s.handover = &handover{newest: s.source.GetCertificate, published: published, now: time.Now}
	return s, nil
}

// named puts the names that are IP addresses where a client looks for them: the signer takes every name for a DNS name.
type named struct{ cmtls.Authority }

// Sign implements the signer's interface.
func (n named) Sign(template *x509.Certificate) (*x509.Certificate, error) {
	var dns []string
	for _, name := range template.DNSNames {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			dns = append(dns, name)
		}
	}
	template.DNSNames = dns
	return n.Authority.Sign(template) //nolint:wrapcheck // the caller looks for a particular error
}

// Start implements Source.
func (s *SelfManaged) Start(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.source.Start(ctx) })
	if s.publisher != nil {
		group.Go(func() error { return s.publisher.run(ctx) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("managing the serving certificate: %w", err)
	}
	return nil
}

// NeedLeaderElection tells the manager that every replica needs its certificate.
func (s *SelfManaged) NeedLeaderElection() bool { return false }

// GetCertificate implements Source.
func (s *SelfManaged) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.handover.GetCertificate(hello)
}

// Checks implements Source.
func (s *SelfManaged) Checks() map[string]func() error {
	checks := map[string]func() error{"certificate": s.certificateReady}
	if s.publisher != nil {
		checks["ca-bundle"] = func() error {
			if err := s.caReady(); err != nil {
				return errors.Join(err, s.publisher.ready())
			}
			return nil
		}
	}
	return checks
}

// Expiry implements Source.
func (s *SelfManaged) Expiry() time.Time { return expiry(s.handover.GetCertificate(nil)) }
