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

// watchedPolicy records whether a rule or a mutator failed.
type watchedPolicy struct {
	webhook.Policy
	failed atomic.Bool
}

func (w *watchedPolicy) Evaluate(ctx context.Context, r validators.Request, l validators.Lookup) policy.Decision {
	d := w.Policy.Evaluate(ctx, r, l)
	if len(d.Errors) > 0 {
		w.failed.Store(true)
	}
	return d
}

func (w *watchedPolicy) Mutate(ctx context.Context, r validators.Request, l validators.Lookup) mutators.Result {
	res := w.Policy.Mutate(ctx, r, l)
	if len(res.Errors) > 0 {
		w.failed.Store(true)
	}
	return res
}

// FuzzAdmissionReview sends arbitrary bytes to each webhook. The response is always a valid AdmissionReview, nothing
// panics, what is not a review is allowed, and Flux deletes no object because of a denial.
func FuzzAdmissionReview(f *testing.F) {
	f.Add([]byte(write{operation: admissionv1.Create, object: kustomization}.body(f)))
	f.Add([]byte(write{operation: admissionv1.Update, object: kustomization, old: strings.Replace(kustomization, "./x", "./y", 1)}.body(f)))
	for _, body := range benchmarkReviews(f) {
		f.Add(body)
	}
	g, err := denyAll()
	if err != nil {
		f.Fatal(err)
	}
	watched := &watchedPolicy{Policy: g}
	b := newTestServer(watched, funcr.New(func(_, text string) {
		if strings.Contains(text, `"msg"="Evaluation panicked"`) || strings.Contains(text, `"msg"="Refusing a request panicked"`) {
			watched.failed.Store(true)
		}
	}, funcr.Options{}))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{webhookconfig.ValidatePath, webhookconfig.MutatePath, webhookconfig.PolicyPath} {
			w := httptest.NewRecorder()
			b.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(string(body))))
			var got admissionv1.AdmissionReview
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK || got.Response == nil {
				t.Fatalf("%s responds with %d %q: %v", path, w.Code, w.Body, err)
			}
			if watched.failed.Load() {
				t.Fatal("a panic, or a rule failed")
			}
			if got.Response.Allowed {
				continue
			}
			var sent admissionv1.AdmissionReview
			// The policy's onError is Deny: what cannot be decoded is refused.
			if err := json.Unmarshal(body, &sent); err != nil && path != webhookconfig.ValidatePath || path == webhookconfig.MutatePath {
				t.Fatalf("%s denies %q: %s", path, body, got.Response.Result.Message)
			}
			if ssaerrors.IsImmutableError(&apierrors.StatusError{ErrStatus: *got.Response.Result}) {
				t.Fatalf("Flux deletes the object for %q", got.Response.Result.Message)
			}
		}
	})
}
