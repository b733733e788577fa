package webhook_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/webhook/certs"
)

// operator is bound to the permissions that docs/operating.md names for the rotate command, and has no others.
const operator = "certificates@example.com"

// longLived restarts the webhook servers with certificates that are not renewed while a test runs, and a CA that old.
func longLived(t *testing.T) {
	t.Helper()
	for _, w := range shared.Webhooks {
		if err := w.Restart(t.Context(), "--leaf-duration=24h", "--ca-duration=2400h"); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, w := range shared.Webhooks {
			if err := w.Restart(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		}
	})
	if err := shared.WaitBalanced(t.Context()); err != nil {
		t.Fatal(err)
	}
	bindOperator(t)
	if out, code := runRotate(t, operator, "--revoke"); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
}

// bindOperator applies the roles of docs/operating.md.
func bindOperator(t *testing.T) {
	t.Helper()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "## Rotating the CA\n")
	_, after, _ = strings.Cut(after, "```yaml\n")
	manifest, _, ok := strings.Cut(after, "```")
	if !ok || !strings.Contains(manifest, operator) {
		t.Fatalf("docs/operating.md binds no roles to %s: %q", operator, manifest)
	}
	if err := shared.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
}

func runRotate(t *testing.T, user string, args ...string) (output string, code int) {
	t.Helper()
	output, code, err := shared.Run(t.Context(), user, append([]string{"rotate"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return output, code
}

// bundle returns the caBundle of the validating webhook.
func bundle(t *testing.T) []byte {
	t.Helper()
	var v admissionregv1.ValidatingWebhookConfiguration
	if err := shared.Client.Get(t.Context(), client.ObjectKey{Name: "flux-admission"}, &v); err != nil {
		t.Fatal(err)
	}
	return v.Webhooks[0].ClientConfig.CABundle
}

// impostor is a webhook server whose certificate is signed by a CA that somebody else has the key of.
type impostor struct {
	url   string
	calls atomic.Int64
}

// newImpostor returns an impostor with a certificate of the CA that is in the Secret now.
func newImpostor(t *testing.T) *impostor {
	t.Helper()
	var secret corev1.Secret
	if err := shared.Client.Get(t.Context(), client.ObjectKey{Namespace: env.Namespace, Name: "flux-admission-ca"}, &secret); err != nil {
		t.Fatal(err)
	}
	i := &impostor{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.calls.Add(1)
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the API server ends the handshakes that this is about
	s.TLS = &tls.Config{Certificates: []tls.Certificate{leaf(t, secret)}, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	i.url = s.URL
	return i
}

// leaf returns a certificate for 127.0.0.1, signed with the CA in a Secret.
func leaf(t *testing.T, secret corev1.Secret) tls.Certificate {
	t.Helper()
	signer, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "impostor"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, signer.Leaf, key.Public(), signer.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// register registers the impostor as a webhook with a caBundle, and returns the error of a write that the API server
// sends to it.
func (i *impostor) register(t *testing.T, caBundle []byte) error {
	t.Helper()
	fail, none := admissionregv1.Fail, admissionregv1.SideEffectClassNone
	c := &admissionregv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "impostor-"},
		Webhooks: []admissionregv1.ValidatingWebhook{{
			Name: "impostor.example.com", ClientConfig: admissionregv1.WebhookClientConfig{URL: &i.url, CABundle: caBundle},
			FailurePolicy: &fail, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			Rules: []admissionregv1.RuleWithOperations{{
				Operations: []admissionregv1.OperationType{admissionregv1.Create},
				Rule:       admissionregv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"limitranges"}},
			}},
		}},
	}
	if err := shared.Client.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := shared.Client.Delete(context.WithoutCancel(t.Context()), c); err != nil {
			t.Error(err)
		}
	}()
	// The API server does not report when it knows the webhook.
	var failure error
	calls := i.calls.Load()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		o := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "probe"}}
		failure = shared.Client.Create(ctx, o, client.DryRunAll)
		return failure != nil || i.calls.Load() > calls, nil
	})
	if err != nil {
		t.Fatalf("the API server does not call the impostor: %v", err)
	}
	return failure
}

// TestRotate_NoReviewFails rotates the CA by the command, as a user with the permissions of the docs: no review fails,
// the old CA stays with a plain rotation, and after a revocation the API server trusts neither it nor a foreign one.
func TestRotate_NoReviewFails(t *testing.T) {
	longLived(t)
	first := bundle(t)
	other := newImpostor(t)
	l := startLoad(t, always)
	out, code := runRotate(t, operator)
	if code != 0 || !strings.Contains(out, "2 of 2 webhook servers have a certificate of the new CA") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	second := bundle(t)
	if len(certs.ParseCABundle(second)) != 2 || !strings.Contains(string(second), string(first)) {
		t.Errorf("the caBundle has not the old and the new CA:\n%s", second)
	}
	if err := other.register(t, second); err != nil {
		t.Errorf("a certificate of the old CA, which is trusted for an hour more: %v", err)
	}
	out, code = runRotate(t, operator, "--revoke")
	if code != 0 || !strings.Contains(out, "2 other CAs are not trusted any more") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	third := bundle(t)
	if cas := certs.ParseCABundle(third); len(cas) != 1 || strings.Contains(string(second), string(third)) || ca(t) != string(third) {
		t.Errorf("the caBundle is not the new CA alone:\n%s", third)
	}
	err := other.register(t, third)
	if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("a server with a certificate of the revoked CA: %v", err)
	}
	pause(t, 5*time.Second)
	l.end(t, 1000)
	if got := bundle(t); string(got) != string(third) {
		t.Errorf("the caBundle changed after the revocation:\n%s", got)
	}
}

// TestRotate_Errors checks that the command reports what is in its way, and changes nothing then.
func TestRotate_Errors(t *testing.T) {
	longLived(t)
	const admin = "admin@example.com"
	everything := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "admin"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: admin}},
	}
	if err := shared.Client.Create(t.Context(), everything); err != nil {
		t.Fatal(err)
	}
	before, stored := ca(t), bundle(t)
	annotate := func(value string) {
		c := &admissionregv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "flux-admission"}}
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"cert-manager.io/inject-ca-from":`+value+`}}}`))
		if err := shared.Client.Patch(t.Context(), c, patch); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		user string
		args []string
		want string
	}{
		"nothing installed":       {admin, []string{"--webhook-config=other"}, "no webhook configuration is named other: flux-admission is not installed"},
		"no webhook server":       {admin, []string{"--namespace=default"}, "no webhook server runs in namespace default"},
		"no Secret":               {admin, []string{"--ca-secret=other"}, "the Secret flux-admission-system/other with the CA does not exist"},
		"no permission":           {"nobody@example.com", nil, `User "nobody@example.com" cannot get resource "validatingwebhookconfigurations"`},
		"no permission to read":   {operator, []string{"--namespace=default"}, `cannot list resource "leases"`},
		"no permission to delete": {operator, []string{"--ca-secret=other"}, `cannot delete resource "secrets"`},
		"cert-manager":            {operator, nil, "cert-manager writes the caBundle"},
		"no kubeconfig":           {operator, []string{"--kubeconfig=/nonexistent"}, "--kubeconfig"},
		"no context":              {operator, []string{"--context=other"}, `context "other" does not exist`},
		"no time":                 {operator, []string{"--timeout=0s"}, "--timeout 0s must be positive"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "cert-manager" {
				annotate(`"flux-admission-system/flux-admission"`)
				defer annotate("null")
			}
			out, code := runRotate(t, tc.user, append(tc.args, "--revoke")...)
			if code != 2 || !strings.Contains(out, tc.want) || strings.Count(out, "\n") != 1 {
				t.Errorf("exit code %d, want 2 and %q:\n%s", code, tc.want, out)
			}
		})
	}
	if ca(t) != before || string(bundle(t)) != string(stored) {
		t.Error("the CA was changed")
	}
	// The new CA must be in the caBundle for longer than this before a certificate of it is served.
	out, code := runRotate(t, operator, "--timeout=3s")
	if code != 1 || !strings.Contains(out, "not done after --timeout 3s") || !strings.Contains(out, "the old CA is still trusted") {
		t.Errorf("exit code %d, want 1 after the deadline:\n%s", code, out)
	}
}
