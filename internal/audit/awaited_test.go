package audit

import (
	"context"
	"errors"
	"testing"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// lister lists one Kustomization, or fails.
type lister struct {
	client.Reader
	err error
}

func (l lister) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if l.err == nil {
		list.(*unstructured.UnstructuredList).Items = []unstructured.Unstructured{*withStatus("True", "", "")}
	}
	return l.err
}

// TestAuditor_AwaitsInformers has an informer that is not synced when the audit begins, as with 100,000 objects: the audit is not
// complete before its objects were evaluated.
func TestAuditor_AwaitsInformers(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want bool // awaited
	}{
		"the list takes too long": {context.DeadlineExceeded, true},
		"the API server fails":    {errors.New("connection refused"), true},
		"there is no permission":  {apierrors.NewForbidden(schema.GroupResource{Resource: "kustomizations"}, "", errors.New("no")), false},
		"it is listed":            {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Group: flux.Kustomization.Group, Version: "v1"}})
			mapper.Add(flux.Kustomization.WithVersion("v1"), meta.RESTScopeNamespace)
			objects := lookup.NewCluster(lister{}, lister{err: tc.err}, mapper, nil)
			synced := false
			objects.Watched = func(schema.GroupKind) bool { return synced }
			p := &policy.Policy{}
			a := &Auditor{
				Policy: func() *policy.Policy { return p }, Leading: func() bool { return true }, Synced: func() error { return nil },
				Objects: objects, Kinds: []schema.GroupKind{flux.Kustomization}, Log: logr.Discard(),
			}
			a.init()
			done := func() bool {
				a.follow(t.Context())
				for a.queue.Len() > 0 {
					id, _ := a.queue.Get()
					a.queue.Done(id)
				}
				a.follow(t.Context())
				return !a.results.Summary().Complete.IsZero()
			}
			if got := done(); got == tc.want {
				t.Fatalf("the audit is complete: %t, want %t", got, !tc.want)
			}
			synced = true
			if !done() {
				t.Error("the audit is not complete after the informer has synced")
			}
		})
	}
}
