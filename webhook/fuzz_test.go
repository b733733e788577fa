package webhook_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ssaerrors "github.com/fluxcd/pkg/ssa/errors"
	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/flux-admission/flux-admission/webhook/registration"
)

// FuzzAdmissionReview sends any bytes to each webhook under the policy that ships. Whatever comes, there is a well-formed answer, nothing panics,
// what is no review is allowed, and a denial is never one for which Flux deletes an object.
func FuzzAdmissionReview(f *testing.F) {
	f.Add([]byte(write{operation: admissionv1.Create, object: kustomization}.body(f)))
	f.Add([]byte(write{operation: admissionv1.Update, object: kustomization, old: strings.Replace(kustomization, "./x", "./y", 1)}.body(f)))
	for _, body := range benchReviews(f) {
		f.Add(body)
	}
	g, err := defaultGate()
	if err != nil {
		f.Fatal(err)
	}
	b := newBench(g, logr.Discard())
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{registration.ValidatePath, registration.MutatePath, registration.PolicyPath} {
			w := httptest.NewRecorder()
			b.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(string(body))))
			var answer admissionv1.AdmissionReview
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK || answer.Response == nil {
				t.Fatalf("%s answers %d %q: %v", path, w.Code, w.Body, err)
			}
			if sum(t, b, "flux_admission_panics_total")+sum(t, b, "flux_admission_rule_errors_total") > 0 {
				t.Fatal("something panicked")
			}
			if answer.Response.Allowed {
				continue
			}
			var sent admissionv1.AdmissionReview
			if err := json.Unmarshal(body, &sent); err != nil || path == registration.MutatePath {
				t.Fatalf("%s refuses %q: %s", path, body, answer.Response.Result.Message)
			}
			if ssaerrors.IsImmutableError(&apierrors.StatusError{ErrStatus: *answer.Response.Result}) {
				t.Fatalf("Flux deletes the object for %q", answer.Response.Result.Message)
			}
		}
	})
}
