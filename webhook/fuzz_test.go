package webhook_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	ssaerrors "github.com/fluxcd/pkg/ssa/errors"
	"github.com/go-logr/logr/funcr"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// watched notices a rule or a mutator that fails.
type watched struct {
	webhook.Gate
	wrong atomic.Bool
}

func (w *watched) Evaluate(ctx context.Context, r validators.Request, l validators.Lookup) policy.Decision {
	d := w.Gate.Evaluate(ctx, r, l)
	if len(d.Errors) > 0 {
		w.wrong.Store(true)
	}
	return d
}

func (w *watched) Mutate(ctx context.Context, r validators.Request, l validators.Lookup) mutators.Result {
	res := w.Gate.Mutate(ctx, r, l)
	if len(res.Errors) > 0 {
		w.wrong.Store(true)
	}
	return res
}

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
	watched := &watched{Gate: g}
	b := newBench(watched, funcr.New(func(_, text string) {
		if strings.Contains(text, `"msg"="A review panicked"`) || strings.Contains(text, `"msg"="Answering a failed review panicked"`) {
			watched.wrong.Store(true)
		}
	}, funcr.Options{}))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{webhookconfig.ValidatePath, webhookconfig.MutatePath, webhookconfig.PolicyPath} {
			w := httptest.NewRecorder()
			b.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(string(body))))
			var answer admissionv1.AdmissionReview
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK || answer.Response == nil {
				t.Fatalf("%s answers %d %q: %v", path, w.Code, w.Body, err)
			}
			if watched.wrong.Load() {
				t.Fatal("something panicked, or a rule failed")
			}
			if answer.Response.Allowed {
				continue
			}
			var sent admissionv1.AdmissionReview
			if err := json.Unmarshal(body, &sent); err != nil || path == webhookconfig.MutatePath {
				t.Fatalf("%s refuses %q: %s", path, body, answer.Response.Result.Message)
			}
			if ssaerrors.IsImmutableError(&apierrors.StatusError{ErrStatus: *answer.Response.Result}) {
				t.Fatalf("Flux deletes the object for %q", answer.Response.Result.Message)
			}
		}
	})
}
