package admission_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/flux-admission/flux-admission/test/writepath"
)

// Whoever can connect gets the same answer for a Secret that exists, one that does not, and one with another value.
func TestWebhook_DirectRequestsLearnNothingOfSecrets(t *testing.T) {
	setPolicy(t, deny, "")
	ns := namespace(t)
	addRepository(t, ns)
	for name, port := range map[string]string{"right": "5432", "wrong": "text"} {
		secret := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\nstringData: {port: %q}\n", name, ns, port)
		if a := writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, secret); a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	answers := map[string][]string{}
	for _, name := range []string{"right", "wrong", "nosuch"} {
		for _, key := range []string{"port", "nokey"} {
			manifest := fmt.Sprintf(release, "airflow", ns, "{user: airflow}") +
				fmt.Sprintf("  valuesFrom: [{kind: Secret, name: %s, valuesKey: %s, targetPath: data.metadataConnection.port}]\n", name, key)
			answer := strings.NewReplacer(name, "NAME", key, "KEY").Replace(direct(t, manifest))
			answers[answer] = append(answers[answer], name+"/"+key)
		}
	}
	if len(answers) != 1 {
		t.Errorf("%d different answers: %v", len(answers), answers)
	}
}

// direct posts a review of a manifest's creation to the webhook server, as any Pod can, and returns the response.
func direct(t *testing.T, manifest string) string {
	t.Helper()
	o, err := writepath.Parse(manifest)
	if err != nil {
		t.Fatal(err)
	}
	object, err := o.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	gvk := o.GroupVersionKind()
	review, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "direct", Kind: metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind},
			Namespace: o.GetNamespace(), Name: o.GetName(), Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: object},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(
		t.Context(), http.MethodPost, "https://"+shared.Address+"/validate?timeout=30s", bytes.NewReader(review))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, //nolint:gosec // the response counts
	}}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s %v", response.StatusCode, body, err)
	}
	return string(body)
}
