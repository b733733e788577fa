// Package authentication_test tests that only the API server is answered: a kube-apiserver whose AdmissionConfiguration
// gives it a client certificate, and clients without it.
package authentication_test

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
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// apiServerName is the common name of the API server's client certificate.
const apiServerName = "kube-apiserver-webhooks"

var (
	shared *env.Env
	ca     *authority
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "flux-admission-authentication-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return env.Main(m, env.Options{
		ControlPlane: controlplane.Options{
			CRDSets: controlplane.DefaultCRDs(),
			Audit:   true,
			APIServerArgs: map[string][]string{
				"admission-control-config-file": {filepath.Join(dir, "admission.yaml")},
			},
		},
		// Authenticated, it reads Secrets where it may.
		Components: []string{"read-secrets"},
		Resources:  []string{env.MutatingWebhook},
		Charts:     []string{"test/authentication/testdata/hostile"},
		// A review that the webhook server refuses is a refused write.
		FailurePolicy: admissionregv1.Fail,
		Args:          []string{"--client-ca-file=" + filepath.Join(dir, "ca.crt"), "--client-ca-name=" + apiServerName},
	}, func(_ context.Context, e *env.Env) error {
		shared = e
		return nil
	})
}

// prepare writes the CA, and the configuration of the API server as docs/authentication.md has it.
func prepare(dir string) error {
	var err error
	if ca, err = newAuthority("flux-admission-clients"); err != nil {
		return err
	}
	certificate, key, err := ca.issue(apiServerName)
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	err = clientcmd.WriteToFile(clientcmdapi.Config{AuthInfos: map[string]*clientcmdapi.AuthInfo{
		"*": {ClientCertificateData: certificate, ClientKeyData: key},
	}}, kubeconfig)
	if err != nil {
		return fmt.Errorf("writing the kubeconfig of webhooks: %w", err)
	}
	var admission strings.Builder
	admission.WriteString("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n")
	for _, plugin := range []string{"ValidatingAdmissionWebhook", "MutatingAdmissionWebhook"} {
		fmt.Fprintf(&admission, `  - name: %s
    configuration:
      apiVersion: apiserver.config.k8s.io/v1
      kind: WebhookAdmissionConfiguration
      kubeConfigFile: %s
`, plugin, kubeconfig)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "admission.yaml"), []byte(admission.String()), 0o600),
		os.WriteFile(filepath.Join(dir, "ca.crt"), ca.pem, 0o600),
	)
}

// authority is a CA of client certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})}, nil
}

// issue returns a client certificate and its key, in PEM.
func (a *authority) issue(name string) (certificate, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

const kustomization = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %s, namespace: %s}
spec:
  interval: 10m
  path: ./apps
  prune: true
  sourceRef: {kind: GitRepository, name: flux-system}
`

func counted(t *testing.T, metric string, labels ...string) float64 {
	t.Helper()
	n, err := shared.Metric(t.Context(), metric, labels...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const refusals = "flux_admission_unauthenticated_requests_total"

// The API server presents the certificate of its AdmissionConfiguration: all three webhooks evaluate, and every refusal
// is one of a rule.
func TestAPIServer_IsAnswered(t *testing.T) {
	before := counted(t, refusals)
	err := shared.Apply(t.Context(), fmt.Sprintf(kustomization, "apps", shared.Namespace(t, "tenant-")))
	if err == nil || !strings.Contains(err.Error(), "KS001") {
		t.Errorf("a Kustomization outside of flux-system: %v; want a denial by KS001", err)
	}
	if err := shared.Apply(t.Context(), fmt.Sprintf(kustomization, "apps", "flux-system")); err != nil {
		t.Errorf("a Kustomization in flux-system: %v", err)
	}
	err = shared.Apply(t.Context(), `apiVersion: flux-admission.dev/v1alpha1
kind: AdmissionPolicy
metadata: {name: default}
spec:
  mutations:
    target-namespace:
      - match: {path: '('}
        targetNamespace: apps
`)
	if err == nil || !strings.Contains(err.Error(), webhookconfig.PolicyWebhook) {
		t.Errorf("an invalid policy: %v; want a denial by %s", err, webhookconfig.PolicyWebhook)
	}
	for _, webhook := range []string{"validate", "mutate", "policy"} {
		if counted(t, "flux_admission_reviews_total", "webhook="+webhook) == 0 {
			t.Errorf("no review by the webhook %s", webhook)
		}
	}
	if after := counted(t, refusals); after != before {
		t.Errorf("%v requests of the API server were refused", after-before)
	}
}

// Everybody else gets 401 and nothing more, whatever is sent to whatever path.
func TestOthers_LearnNothing(t *testing.T) {
	foreign, err := newAuthority("flux-admission-clients") // the same name, another key
	if err != nil {
		t.Fatal(err)
	}
	review := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE",
		"kind":{"group":"kustomize.toolkit.fluxcd.io","version":"v1","kind":"Kustomization"},"namespace":"forged","name":"forged",
		"userInfo":{"username":"forged"},"object":{"apiVersion":"kustomize.toolkit.fluxcd.io/v1","kind":"Kustomization",
		"metadata":{"name":"forged","namespace":"forged"},"spec":{"path":"./apps"}}}}`
	reviews := counted(t, "flux_admission_reviews_total")
	for name, tc := range map[string]struct {
		issuer         *authority
		common, reason string
	}{
		"without a certificate":                   {nil, "", "no_certificate"},
		"with a certificate of a CA of that name": {foreign, apiServerName, "untrusted"},
		"with a certificate for another name":     {ca, "system:node:worker-1", "other_name"},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the response counts
			if tc.issuer != nil {
				certificate, key, err := tc.issuer.issue(tc.common)
				if err != nil {
					t.Fatal(err)
				}
				pair, err := tls.X509KeyPair(certificate, key)
				if err != nil {
					t.Fatal(err)
				}
				config.Certificates = []tls.Certificate{pair}
			}
			client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: config}}
			paths := []string{webhookconfig.ValidatePath, webhookconfig.MutatePath, webhookconfig.PolicyPath, "/metrics"}
			before := counted(t, refusals, "reason="+tc.reason)
			for _, path := range paths {
				// The second body is larger than any that is read: the answer does not wait for it.
				for _, body := range []io.Reader{strings.NewReader(review), bytes.NewReader(make([]byte, 16<<20))} {
					r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+shared.Address+path, body)
					if err != nil {
						t.Fatal(err)
					}
					response, err := client.Do(r)
					if err != nil {
						// The server has closed the connection while the client was still writing.
						continue
					}
					got, err := io.ReadAll(response.Body)
					_ = response.Body.Close()
					if err != nil || response.StatusCode != http.StatusUnauthorized || len(got) > 0 {
						t.Errorf("%s: status %d, body %q, %v; want 401 and nothing", path, response.StatusCode, got, err)
					}
				}
			}
			if after := counted(t, refusals, "reason="+tc.reason); after != before+float64(2*len(paths)) {
				t.Errorf("%v refusals were counted, want %d", after-before, 2*len(paths))
			}
		})
	}
	if after := counted(t, "flux_admission_reviews_total"); after != reviews {
		t.Errorf("%v reviews were counted", after-reviews)
	}
	if log := shared.Webhook().Log(); strings.Contains(log, "forged") {
		t.Error("the log has what an unauthenticated client sent")
	}
}
