package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// start is when the tests' certificates begin; time stands still but for what a test says.
var start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (p pair) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
}

func (p pair) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

func issue(t *testing.T, name string, from, to time.Time, ca *pair) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(from.Unix()), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		DNSNames: []string{name}, BasicConstraintsValid: true, IsCA: ca == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return pair{cert, key}
}

func TestMergeBundle(t *testing.T) {
	hour := time.Hour
	a := issue(t, "a", start, start.Add(3*hour), nil)
	b := issue(t, "b", start.Add(hour), start.Add(4*hour), nil)
	expired := issue(t, "expired", start.Add(-3*hour), start.Add(-hour), nil)
	now := start.Add(2 * hour)
	join := func(ps ...pair) []byte {
		var out []byte
		for _, p := range ps {
			out = append(out, p.pem()...)
		}
		return out
	}
	for name, tc := range map[string]struct{ have, want []byte }{
		"an empty bundle gets the CA":                       {nil, join(b)},
		"an older CA that is still valid stays, before it":  {join(a), join(a, b)},
		"an expired CA leaves":                              {join(expired, a), join(a, b)},
		"a bundle that has it already stays as it is":       {join(a, b), join(a, b)},
		"what appears twice is kept once":                   {join(a, a, b, b), join(a, b)},
		"what is no certificate leaves":                     {append([]byte("placeholder\n"), join(a)...), join(a, b)},
		"an order of somebody else's becomes our own order": {join(b, a), join(a, b)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mergeBundle(tc.have, b.cert, now); !bytes.Equal(got, tc.want) {
				t.Errorf("%d certificates, want %d:\n%s", len(parseBundle(got)), len(parseBundle(tc.want)), got)
			}
		})
	}
	var many []byte
	for i := range 3 * maxCAs {
		many = append(many, issue(t, "many", start.Add(time.Duration(i)*time.Second), start.Add(4*hour), nil).pem()...)
	}
	got := parseBundle(mergeBundle(many, a.cert, now))
	if len(got) != maxCAs || !got[0].Equal(a.cert) {
		t.Errorf("a bundle of %d CAs has become one of %d; want %d, the current CA among them", 3*maxCAs, len(got), maxCAs)
	}
}

func TestHandover(t *testing.T) {
	caOld, caNew := issue(t, "ca-old", start, start.Add(time.Hour), nil), issue(t, "ca-new", start, start.Add(time.Hour), nil)
	old := issue(t, "leaf", start, start.Add(10*time.Minute), &caOld)
	next := issue(t, "leaf", start, start.Add(20*time.Minute), &caNew)

	for name, tc := range map[string]struct {
		publishedFor time.Duration // of the new CA; negative: not at all
		at           time.Duration // since start
		want         pair
	}{
		"a CA that is not published keeps the old certificate":                       {-1, time.Minute, old},
		"a CA that was published a moment ago keeps the old certificate":             {time.Second, time.Minute, old},
		"a CA that has settled hands over":                                           {settle, time.Minute, next},
		"a certificate about to expire hands over after the least time":              {minSettle, 10*time.Minute - time.Second, next},
		"a certificate about to expire does not hand over to an unknown CA":          {-1, 10*time.Minute - time.Second, old},
		"an expired certificate is given up whether or not the new one is known yet": {-1, 11 * time.Minute, next},
	} {
		t.Run(name, func(t *testing.T) {
			now := start
			newest := old.tls()
			h := &handover{
				newest: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return newest, nil },
				published: func(leaf *x509.Certificate) (time.Time, bool) {
					if leaf.CheckSignatureFrom(caNew.cert) != nil {
						return start, true
					}
					return now.Add(-tc.publishedFor), tc.publishedFor >= 0
				},
				now: func() time.Time { return now },
			}
			if got, err := h.GetCertificate(nil); err != nil || got.Leaf != old.cert {
				t.Fatalf("the first certificate is not served: %v", err)
			}
			now, newest = start.Add(tc.at), next.tls()
			got, err := h.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			if got.Leaf != tc.want.cert {
				t.Errorf("the certificate being served expires at %s, want the one that expires at %s", got.Leaf.NotAfter, tc.want.cert.NotAfter)
			}
		})
	}
}

func TestHandoverWithoutACertificate(t *testing.T) {
	h := &handover{
		newest:    func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("not signed yet") },
		published: func(*x509.Certificate) (time.Time, bool) { return time.Time{}, false },
		now:       func() time.Time { return start },
	}
	if _, err := h.GetCertificate(nil); !errors.Is(err, errNone) {
		t.Errorf("error %v, want %v", err, errNone)
	}
	if err := h.certificateReady(); !errors.Is(err, errNone) {
		t.Errorf("ready says %v, want %v", err, errNone)
	}
}

func newPublisher(t *testing.T, ca pair, objects ...any) (*publisher, *fake.Clientset) {
	t.Helper()
	client := fake.NewClientset(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "gate", Name: "ca"}, Data: map[string][]byte{corev1.TLSCertKey: ca.pem()},
	})
	for _, o := range objects {
		var err error
		switch c := o.(type) {
		case *admissionv1.ValidatingWebhookConfiguration:
			_, err = client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), c, metav1.CreateOptions{})
		case *admissionv1.MutatingWebhookConfiguration:
			_, err = client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), c, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return &publisher{
		client: client, namespace: "gate", secret: "ca", config: "gate", observe: func(error) {}, now: func() time.Time { return start.Add(time.Minute) },
		problem: errors.New("not yet"),
	}, client
}

func configs() (*admissionv1.ValidatingWebhookConfiguration, *admissionv1.MutatingWebhookConfiguration) {
	meta := metav1.ObjectMeta{Name: "gate"}
	return &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: meta, Webhooks: []admissionv1.ValidatingWebhook{{Name: "v1"}, {Name: "v2"}}},
		&admissionv1.MutatingWebhookConfiguration{ObjectMeta: meta, Webhooks: []admissionv1.MutatingWebhook{{Name: "m1"}}}
}

func TestThePublisherFillsInEveryWebhookAndSaysSinceWhen(t *testing.T) {
	ca := issue(t, "ca", start, start.Add(time.Hour), nil)
	leaf := issue(t, "leaf", start, start.Add(time.Hour), &ca)
	v, m := configs()
	p, client := newPublisher(t, ca, v, m)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	for {
		if _, ok := p.since(leaf.cert); ok {
			break
		}
		select {
		case <-t.Context().Done():
			t.Fatal("the CA was not published")
		case <-time.After(time.Millisecond):
		}
	}
	gotV, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "gate", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gotM, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "gate", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	validating, mutating := observed{validating: gotV, mutating: gotM}.hooks()
	for _, h := range append(validating, mutating...) {
		if !bytes.Equal(h.bundle, ca.pem()) {
			t.Errorf("the bundle of webhook %s is %q, want the CA", h.name, h.bundle)
		}
	}
	if len(validating) != 2 || len(mutating) != 1 {
		t.Errorf("%d and %d webhooks after publishing, want 2 and 1", len(validating), len(mutating))
	}
	other := issue(t, "other-ca", start, start.Add(time.Hour), nil)
	stranger := issue(t, "leaf", start, start.Add(time.Hour), &other)
	if _, ok := p.since(stranger.cert); ok {
		t.Error("a CA that was never published counts as published")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestThePublisherSaysWhatItWaitsFor(t *testing.T) {
	ca := issue(t, "ca", start, start.Add(time.Hour), nil)
	v, m := configs()
	secret := &corev1.Secret{Data: map[string][]byte{corev1.TLSCertKey: ca.pem()}}
	for name, tc := range map[string]struct {
		state observed
		want  string
	}{
		"no Secret yet":             {observed{validating: v, mutating: m}, "the Secret gate/ca with the CA does not exist yet"},
		"a Secret without a CA":     {observed{secret: &corev1.Secret{}, validating: v}, "the Secret gate/ca holds no CA certificate yet"},
		"no webhook configuration":  {observed{secret: secret}, "there is no webhook configuration named gate to publish the CA in: apply the manifests, or name it with --webhook-config"},
		"a configuration that goes": {observed{secret: secret, mutating: m}, "publishing the CA in the webhook configuration gate: "},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := newPublisher(t, ca)
			err := p.publish(t.Context(), tc.state)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestACAInOneConfigurationOnlyIsNotPublished(t *testing.T) {
	ca := issue(t, "ca", start, start.Add(time.Hour), nil)
	leaf := issue(t, "leaf", start, start.Add(time.Hour), &ca)
	p, _ := newPublisher(t, ca)
	p.note([]hook{{"a", ca.pem()}, {"b", nil}})
	if _, ok := p.since(leaf.cert); ok {
		t.Error("published, although one webhook does not have it")
	}
	p.note([]hook{{"a", ca.pem()}, {"b", ca.pem()}})
	first, ok := p.since(leaf.cert)
	if !ok {
		t.Fatal("not published, although every webhook has it")
	}
	p.now = func() time.Time { return start.Add(time.Hour) }
	p.note([]hook{{"a", ca.pem()}, {"b", ca.pem()}})
	if again, _ := p.since(leaf.cert); !again.Equal(first) {
		t.Errorf("published since %s, want still %s", again, first)
	}
}

// signer stands in for the authority: it returns the template as it was asked to sign it.
type signer struct{}

func (signer) Run(context.Context) error                                  { return nil }
func (signer) WatchRotation(chan<- struct{})                              {}
func (signer) StopWatchingRotation(chan<- struct{})                       {}
func (signer) Sign(template *x509.Certificate) (*x509.Certificate, error) { return template, nil }

func TestAddressesAreSignedAsAddresses(t *testing.T) {
	got, err := named{signer{}}.Sign(&x509.Certificate{DNSNames: []string{"localhost", "127.0.0.1", "::1"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.DNSNames) != 1 || got.DNSNames[0] != "localhost" || len(got.IPAddresses) != 2 || !got.IPAddresses[0].Equal(net.IPv4(127, 0, 0, 1)) {
		t.Errorf("names %q, addresses %v", got.DNSNames, got.IPAddresses)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if _, err := NewFiles(cert, key); err == nil || !strings.Contains(err.Error(), cert) {
		t.Errorf("error %v, want one that names %s", err, cert)
	}
	p := issue(t, "leaf", start, start.Add(time.Hour), nil)
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{cert: p.pem(), key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := NewFiles(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Expiry().Equal(start.Add(time.Hour)) {
		t.Errorf("expires at %s, want %s", f.Expiry(), start.Add(time.Hour))
	}
	for now, want := range map[time.Time]string{
		start:                    "",
		start.Add(2 * time.Hour): "the serving certificate expired at 2026-11-23T11:00:00Z",
	} {
		f.now = func() time.Time { return now }
		got := ""
		if err := f.Checks()["certificate"](); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("at %s the check says %q, want %q", now, got, want)
		}
	}
}
