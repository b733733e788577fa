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

	"github.com/go-logr/logr/funcr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// start is when the certificates of the tests become valid. The clock is injected.
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

func TestMergeCABundle(t *testing.T) {
	hour := time.Hour
	now := start.Add(2 * hour)
	own := func(from, to time.Time) pair { return issue(t, caName, from, to, nil) }
	a := own(start, start.Add(3*hour))
	b := own(now.Add(-hour/2), now.Add(3*hour))
	newer := own(now.Add(-time.Second), now.Add(3*hour))
	expired := own(start.Add(-3*hour), start.Add(-hour))
	foreign := issue(t, "foreign", now.Add(-hour/2), now.Add(1000*hour), nil)
	future := own(now.Add(hour), now.Add(1000*hour))
	leaf := issue(t, caName, now.Add(-hour/2), now.Add(hour), &b)
	join := func(ps ...pair) []byte {
		var out []byte
		for _, p := range ps {
			out = append(out, p.pem()...)
		}
		return out
	}
	later := now.Add(hour)
	for name, tc := range map[string]struct {
		have, want []byte
		now        time.Time
	}{
		"an empty bundle gets the CA":              {nil, join(b), now},
		"the CA before a rotation stays":           {join(a), join(a, b), now},
		"the CA before a rotation stays an hour":   {join(a, b), join(b), later},
		"a newer CA of another replica stays":      {join(b, newer), join(b, newer), now},
		"a newer CA that is not used is removed":   {join(b, newer), join(b), later},
		"a CA that another product made":           {join(a, b, foreign), join(a, b), now},
		"a CA that is valid in the future":         {join(a, b, future), join(a, b), now},
		"a certificate that is none of a CA":       {join(b, leaf), join(b), now},
		"an expired CA is removed":                 {join(expired, a), join(a, b), now},
		"a bundle with the CA stays as it is":      {join(a, b), join(a, b), now},
		"a duplicate is removed":                   {join(a, a, b, b), join(a, b), now},
		"what is not a certificate is removed":     {append([]byte("placeholder\n"), join(a)...), join(a, b), now},
		"the CAs are sorted":                       {join(b, a), join(a, b), now},
		"the current CA stays for as long as ever": {join(a, b), join(b), now.Add(1000 * hour)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mergeCABundle(tc.have, b.cert, tc.now); !bytes.Equal(got, tc.want) {
				t.Errorf("%d certificates, want %d:\n%s", len(ParseCABundle(got)), len(ParseCABundle(tc.want)), got)
			}
		})
	}
	var many []byte
	for i := range 3 * maxCAs {
		many = append(many, own(now.Add(time.Duration(i)*time.Second), now.Add(4*hour)).pem()...)
	}
	got := ParseCABundle(mergeCABundle(many, a.cert, now.Add(time.Minute)))
	if len(got) != maxCAs || !got[0].Equal(a.cert) {
		t.Errorf("a bundle of %d CAs was merged into %d; want %d with the current CA", 3*maxCAs, len(got), maxCAs)
	}
}

func TestRotation(t *testing.T) {
	caOld, caNew := issue(t, "ca-old", start, start.Add(time.Hour), nil), issue(t, "ca-new", start, start.Add(time.Hour), nil)
	old := issue(t, "leaf", start, start.Add(10*time.Minute), &caOld)
	next := issue(t, "leaf", start, start.Add(20*time.Minute), &caNew)

	for name, tc := range map[string]struct {
		inBundleFor time.Duration // of the new CA; negative: not at all
		at          time.Duration // since start
		want        pair
	}{
		"a CA that is not in the caBundle keeps the old certificate":            {-1, time.Minute, old},
		"a CA that is new in the caBundle keeps the old certificate":            {time.Second, time.Minute, old},
		"a CA that has propagated replaces the certificate":                     {propagationDelay, time.Minute, next},
		"a certificate about to expire is replaced after the least delay":       {minPropagationDelay, 10*time.Minute - time.Second, next},
		"a certificate about to expire is not replaced by one of an unknown CA": {-1, 10*time.Minute - time.Second, old},
		"an expired certificate is replaced whether or not the CA is known":     {-1, 11 * time.Minute, next},
	} {
		t.Run(name, func(t *testing.T) {
			now := start
			newest := old.tls()
			h := &rotation{
				newest: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return newest, nil },
				trustedSince: func(leaf *x509.Certificate) (time.Time, bool) {
					if leaf.CheckSignatureFrom(caNew.cert) != nil {
						return start, true
					}
					return now.Add(-tc.inBundleFor), tc.inBundleFor >= 0
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

func TestRotation_WithoutCertificate(t *testing.T) {
	h := &rotation{
		newest:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("not signed yet") },
		trustedSince: func(*x509.Certificate) (time.Time, bool) { return time.Time{}, false },
		now:          func() time.Time { return start },
	}
	if _, err := h.GetCertificate(nil); !errors.Is(err, errNoCertificate) {
		t.Errorf("error %v, want %v", err, errNoCertificate)
	}
	if err := h.certificateReady(); !errors.Is(err, errNoCertificate) {
		t.Errorf("certificateReady = %v; want %v", err, errNoCertificate)
	}
}

func newInjector(t *testing.T, ca pair, objects ...any) (*caInjector, *fake.Clientset) {
	t.Helper()
	client := fake.NewClientset(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "admission", Name: "ca"}, Data: map[string][]byte{corev1.TLSCertKey: ca.pem()},
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
	return &caInjector{
		client: client, namespace: "admission", secret: "ca", config: "admission", observe: func(error) {}, now: func() time.Time { return start.Add(time.Minute) },
		problem: errors.New("not yet"),
	}, client
}

func configs() (*admissionv1.ValidatingWebhookConfiguration, *admissionv1.MutatingWebhookConfiguration) {
	meta := metav1.ObjectMeta{Name: "admission"}
	return &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: meta, Webhooks: []admissionv1.ValidatingWebhook{{Name: "v1"}, {Name: "v2"}}},
		&admissionv1.MutatingWebhookConfiguration{ObjectMeta: meta, Webhooks: []admissionv1.MutatingWebhook{{Name: "m1"}}}
}

func TestCAInjector_WritesEveryWebhook(t *testing.T) {
	ca := issue(t, "ca", start, start.Add(time.Hour), nil)
	leaf := issue(t, "leaf", start, start.Add(time.Hour), &ca)
	v, m := configs()
	p, client := newInjector(t, ca, v, m)
	var logged strings.Builder // read after run has ended
	p.log = funcr.New(func(_, args string) { logged.WriteString(args + "\n") }, funcr.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	for {
		if _, ok := p.since(leaf.cert); ok {
			break
		}
		select {
		case <-t.Context().Done():
			t.Fatal("the CA was not written")
		case <-time.After(time.Millisecond):
		}
	}
	gotV, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "admission", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gotM, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "admission", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	validating, mutating := state{validating: gotV, mutating: gotM}.hooks()
	for _, h := range append(validating, mutating...) {
		if !bytes.Equal(h.caBundle, ca.pem()) {
			t.Errorf("the caBundle of webhook %s is %q, want the CA", h.name, h.caBundle)
		}
	}
	if len(validating) != 2 || len(mutating) != 1 {
		t.Errorf("%d and %d webhooks after the write, want 2 and 1", len(validating), len(mutating))
	}
	other := issue(t, "other-ca", start, start.Add(time.Hour), nil)
	stranger := issue(t, "leaf", start, start.Add(time.Hour), &other)
	if _, ok := p.since(stranger.cert); ok {
		t.Error("since returns a CA that was never written")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, kind := range []string{"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"} {
		if want := `"kind"="` + kind + `"`; !strings.Contains(logged.String(), want) || !strings.Contains(logged.String(), Fingerprint(ca.cert)) {
			t.Errorf("the log is %s; want %s and the fingerprint of the CA", logged.String(), want)
		}
	}
}

func TestCAInjector_Errors(t *testing.T) {
	ca := issue(t, "ca", start, start.Add(time.Hour), nil)
	v, m := configs()
	secret := &corev1.Secret{Data: map[string][]byte{corev1.TLSCertKey: ca.pem()}}
	for name, tc := range map[string]struct {
		state state
		want  string
	}{
		"no Secret yet":            {state{validating: v, mutating: m}, "the Secret admission/ca with the CA does not exist yet"},
		"a Secret without a CA":    {state{secret: &corev1.Secret{}, validating: v}, "the Secret admission/ca has no CA certificate yet"},
		"no webhook configuration": {state{secret: secret}, "no webhook configuration is named admission: apply the manifests, or set --webhook-config"},
		"a deleted configuration":  {state{secret: secret, mutating: m}, "writing the caBundle of the webhook configuration admission: "},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := newInjector(t, ca)
			err := p.inject(t.Context(), tc.state)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// TestCAInjector_ReplacesACAOfTomorrow has a CA that a replica with a wrong clock has issued.
func TestCAInjector_ReplacesACAOfTomorrow(t *testing.T) {
	ca := issue(t, "ca", start.Add(24*time.Hour), start.Add(48*time.Hour), nil)
	v, m := configs()
	p, client := newInjector(t, ca, v, m)
	secret, err := client.CoreV1().Secrets("admission").Get(t.Context(), "ca", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secret.Data[caKey] = ca.pem()
	err = p.inject(t.Context(), state{secret: secret, validating: v, mutating: m})
	if err == nil || !strings.Contains(err.Error(), "is not valid until 2026-11-24T10:00:00Z") {
		t.Errorf("error %v", err)
	}
	got, err := client.CoreV1().Secrets("admission").Get(t.Context(), "ca", metav1.GetOptions{})
	if err != nil || got.Data[caKey] != nil || len(secret.Data[caKey]) == 0 {
		t.Errorf("%v, the Secret has %v; want it without the CA, so that another one is issued", err, got.Data)
	}
	config, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "admission", metav1.GetOptions{})
	if err != nil || len(config.Webhooks[0].ClientConfig.CABundle) > 0 {
		t.Errorf("%v, the caBundle has the CA", err)
	}
	p.now = func() time.Time { return start.Add(24*time.Hour - maxClockSkew) }
	if err := p.inject(t.Context(), state{secret: secret, validating: v, mutating: m}); err != nil {
		t.Errorf("with clocks that differ a little: %v", err)
	}
}

func TestCAInjector_SinceNeedsEveryWebhook(t *testing.T) {
	ca := issue(t, "ca", start, start.Add(time.Hour), nil)
	leaf := issue(t, "leaf", start, start.Add(time.Hour), &ca)
	p, _ := newInjector(t, ca)
	p.record([]hook{{"a", ca.pem()}, {"b", nil}})
	if _, ok := p.since(leaf.cert); ok {
		t.Error("since returns a CA that one webhook does not have")
	}
	p.record([]hook{{"a", ca.pem()}, {"b", ca.pem()}})
	first, ok := p.since(leaf.cert)
	if !ok {
		t.Fatal("since does not return a CA that every webhook has")
	}
	p.now = func() time.Time { return start.Add(time.Hour) }
	p.record([]hook{{"a", ca.pem()}, {"b", ca.pem()}})
	if again, _ := p.since(leaf.cert); !again.Equal(first) {
		t.Errorf("since %s; want still %s", again, first)
	}
}

// signer is an authority that returns the template instead of a certificate.
type signer struct{}

func (signer) Run(context.Context) error                                  { return nil }
func (signer) WatchRotation(chan<- struct{})                              {}
func (signer) StopWatchingRotation(chan<- struct{})                       {}
func (signer) Sign(template *x509.Certificate) (*x509.Certificate, error) { return template, nil }

func TestIPSigner(t *testing.T) {
	got, err := ipSigner{signer{}}.Sign(&x509.Certificate{DNSNames: []string{"localhost", "127.0.0.1", "::1"}})
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
		start.Add(-maxClockSkew): "",
		start.Add(-time.Hour):    "the serving certificate is not valid until 2026-11-23T10:00:00Z; check the clocks of the nodes",
	} {
		f.now = func() time.Time { return now }
		got := ""
		if err := f.Checks()["certificate"](); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("at %s the check returns %q; want %q", now, got, want)
		}
	}
}
