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
	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Options configure a self-managed certificate.
type Options struct {
	// Config is the client configuration of the cluster.
	Config *rest.Config
	// Namespace and Secret hold the CA and its key, shared by all replicas.
	Namespace, Secret string
	// WebhookConfig is the name of the webhook configurations whose caBundle is written; empty for none.
	WebhookConfig string
	// Names are the DNS names and IP addresses in the certificate.
	Names []string
	// CADuration and LeafDuration are the validity of the CA and of the certificate; each is renewed after two thirds
	// of it.
	CADuration, LeafDuration time.Duration
	// Observe receives the result of each attempt to write a caBundle.
	Observe func(error)
	Log     logr.Logger
}

// SelfManaged provides a certificate signed by a CA in a Secret, renews both, and writes the CA into the webhook
// configurations.
type SelfManaged struct {
	rotation *rotation
	source   *cmtls.DynamicSource
	injector *caInjector
}

// NewSelfManaged returns a source without a certificate; Start issues the first one.
func NewSelfManaged(o Options) (*SelfManaged, error) {
	if o.LeafDuration <= 0 || o.CADuration < 2*o.LeafDuration {
		return nil, fmt.Errorf(
			"a CA valid for %s cannot sign certificates valid for %s: it must be valid at least twice as long",
			o.CADuration, o.LeafDuration)
	}
	if len(o.Names) == 0 {
		return nil, errors.New("the serving certificate needs a name")
	}
	client, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("creating a client for the Secret of the CA: %w", err)
	}
	s := &SelfManaged{source: &cmtls.DynamicSource{
		DNSNames: o.Names,
		Authority: ipSigner{&authority.DynamicAuthority{
			SecretNamespace: o.Namespace, SecretName: o.Secret, RESTConfig: o.Config, CommonName: caName,
			SecretLabels: map[string]string{
				"app.kubernetes.io/name": "flux-admission", "app.kubernetes.io/part-of": "flux-admission",
			},
			CADuration: o.CADuration, LeafDuration: o.LeafDuration,
		}},
	}}
	trustedSince := func(*x509.Certificate) (time.Time, bool) { return time.Time{}, true }
	if o.WebhookConfig != "" {
		s.injector = &caInjector{
			client: client, namespace: o.Namespace, secret: o.Secret, config: o.WebhookConfig, observe: o.Observe, now: time.Now,
			log: o.Log, problem: errors.New("the caBundle has not been written yet"),
		}
		trustedSince = s.injector.since
	}
	s.rotation = &rotation{newest: s.source.GetCertificate, trustedSince: trustedSince, now: time.Now}
	return s, nil
}

// ipSigner makes IP addresses of the names that are some: the authority takes every name for a DNS name.
type ipSigner struct{ cmtls.Authority }

// Sign implements cmtls.Authority.
func (n ipSigner) Sign(template *x509.Certificate) (*x509.Certificate, error) {
	var dns []string
	for _, name := range template.DNSNames {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			dns = append(dns, name)
		}
	}
	template.DNSNames = dns
	return n.Authority.Sign(template) //nolint:wrapcheck // the caller matches a particular error
}

// Start implements Source.
func (s *SelfManaged) Start(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.source.Start(ctx) })
	if s.injector != nil {
		group.Go(func() error { return s.injector.run(ctx) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("managing the serving certificate: %w", err)
	}
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica needs a certificate.
func (s *SelfManaged) NeedLeaderElection() bool { return false }

// GetCertificate implements Source.
func (s *SelfManaged) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.rotation.GetCertificate(hello)
}

// Checks implements Source.
func (s *SelfManaged) Checks() map[string]func() error {
	checks := map[string]func() error{"certificate": s.rotation.certificateReady}
	if s.injector != nil {
		checks["ca-bundle"] = func() error {
			if err := s.rotation.caReady(); err != nil {
				return errors.Join(err, s.injector.ready())
			}
			return nil
		}
	}
	return checks
}

// CA returns the fingerprint of the CA that signed the serving certificate, for those who wait for a rotation; empty while
// the caBundle does not hold that CA.
func (s *SelfManaged) CA() string {
	c, err := s.rotation.GetCertificate(nil)
	if err != nil || s.injector == nil {
		return ""
	}
	leaf, err := leafOf(c)
	if err != nil {
		return ""
	}
	issuer, ok := s.injector.issuer(leaf)
	if !ok {
		return ""
	}
	return Fingerprint(issuer.ca)
}

// Expiry implements Source.
func (s *SelfManaged) Expiry() time.Time { return expiry(s.rotation.GetCertificate(nil)) }
