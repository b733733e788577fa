package lookup_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

var (
	secretGK    = schema.GroupKind{Kind: "Secret"}
	namespaceGK = schema.GroupKind{Kind: "Namespace"}
)

func object(kind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: kind})
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

func TestMemory(t *testing.T) {
	m := lookup.NewMemory(object("Secret", "a", "x"), object("Secret", "b", "y"), object("Namespace", "", "a"))
	m.Hide(secretGK, types.NamespacedName{Namespace: "a", Name: "encrypted"}, errors.New("encrypted with SOPS"))
	partial := &lookup.Memory{}
	for name, tc := range map[string]struct {
		lookup validators.Lookup
		key    string
		want   validators.Presence
		reason string
	}{
		"an object that exists":                                     {m, "a/x", validators.Present, ""},
		"an object of another namespace is absent":                  {m, "a/y", validators.Absent, ""},
		"a hidden object is unknown, with the reason":               {m, "a/encrypted", validators.Unknown, "Secret a/encrypted: encrypted with SOPS"},
		"a missing object is unknown if the Memory is not complete": {partial, "a/x", validators.Unknown, "Secret a/x: not among the objects given"},
	} {
		t.Run(name, func(t *testing.T) {
			ns, n, _ := strings.Cut(tc.key, "/")
			o, got, err := tc.lookup.Get(t.Context(), secretGK, types.NamespacedName{Namespace: ns, Name: n})
			if got != tc.want || (o != nil) != (got == validators.Present) {
				t.Errorf("Get = %v, %v; want %v", o, got, tc.want)
			}
			if text(err) != tc.reason {
				t.Errorf("reason %q, want %q", text(err), tc.reason)
			}
		})
	}
	list, presence, _ := m.List(t.Context(), secretGK, "")
	if len(list) != 2 || list[0].GetName() != "x" || presence != validators.Present {
		t.Errorf("List = %v, %v; want x and y", list, presence)
	}
	if _, presence, _ := m.Namespace(t.Context(), "a"); presence != validators.Present {
		t.Errorf("Namespace a is %v", presence)
	}
	if _, presence, err := m.Chart(t.Context(), validators.ChartRef{}); presence != validators.Unknown || err == nil {
		t.Errorf("Chart without a resolver is %v, %v; want unknown with a reason", presence, err)
	}
}

func TestMemory_ListIsSortedAfterAdd(t *testing.T) {
	m := lookup.NewMemory(object("Secret", "b", "y"), object("Secret", "a", "z"))
	names := func(namespace string) string {
		list, presence, err := m.List(t.Context(), secretGK, namespace)
		if presence != validators.Present || err != nil {
			t.Fatalf("List = %s, %v", presence, err)
		}
		var out []string
		for _, o := range list {
			out = append(out, o.GetNamespace()+"/"+o.GetName())
		}
		return strings.Join(out, " ")
	}
	if all, a, none := names(""), names("a"), names("c"); all != "a/z b/y" || a != "a/z" || none != "" {
		t.Errorf("all %q, of a %q, of c %q", all, a, none)
	}
	m.Add(object("Secret", "a", "x"))
	if all, a := names(""), names("a"); all != "a/x a/z b/y" || a != "a/x a/z" {
		t.Errorf("after another was added: all %q, of a %q", all, a)
	}
}

func TestCluster(t *testing.T) {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Version: "v1"}})
	mapper.Add(secretGK.WithVersion("v1"), meta.RESTScopeNamespace)
	mapper.Add(namespaceGK.WithVersion("v1"), meta.RESTScopeRoot)
	broken := errors.New("connection refused")
	live := interceptor.NewClient(fake.NewClientBuilder().WithObjects(object("Secret", "a", "x"), object("Namespace", "", "new")).Build(), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			switch key.Name {
			case "forbidden":
				return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, errors.New("because"))
			case "slow":
				<-ctx.Done()
				return ctx.Err()
			case "broken":
				return broken
			}
			return c.Get(ctx, key, obj, opts...)
		},
	})
	cache := fake.NewClientBuilder().WithObjects(object("Namespace", "", "cached")).Build()
	c := lookup.NewCluster(cache, live, mapper, nil)
	for name, tc := range map[string]struct {
		gk     schema.GroupKind
		name   string
		want   validators.Presence
		reason string
	}{
		"an object that exists":                 {secretGK, "x", validators.Present, ""},
		"an object that does not exist":         {secretGK, "nope", validators.Absent, ""},
		"a kind that is not served":             {schema.GroupKind{Group: "example.com", Kind: "Widget"}, "x", validators.Absent, ""},
		"an object without permission to read":  {secretGK, "forbidden", validators.Unknown, "no permission to read Secret a/forbidden: it is not read for rules; the component read-secrets grants it"},
		"an object that takes too long to read": {secretGK, "slow", validators.Unknown, "reading Secret a/slow took too long"},
		"an API server that does not respond":   {secretGK, "broken", validators.Unknown, "reading Secret a/broken: connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			o, got, err := c.Get(t.Context(), tc.gk, types.NamespacedName{Namespace: "a", Name: tc.name})
			if got != tc.want || (o != nil) != (got == validators.Present) {
				t.Errorf("Get = %v, %v; want %v", o, got, tc.want)
			}
			if text(err) != tc.reason {
				t.Errorf("reason %q, want %q", text(err), tc.reason)
			}
		})
	}
	for _, name := range []string{"cached", "new"} {
		if _, got, err := c.Namespace(t.Context(), name); got != validators.Present {
			t.Errorf("Namespace %s is %v (%v), want present", name, got, err)
		}
	}
	// Labels as they were last seen serve a review that has no time left, or while the API server does not respond.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, got, err := c.Namespace(ended, "cached"); got != validators.Present {
		t.Errorf("a Namespace in the cache is %v (%v) when the time is over, want present", got, err)
	}
	if _, got, _ := c.Namespace(t.Context(), "broken"); got != validators.Unknown {
		t.Errorf("a Namespace that is not in the cache is %v without an API server, want unknown", got)
	}
	if _, got, _ := c.Namespace(t.Context(), "gone"); got != validators.Absent {
		t.Errorf("Namespace gone is %v, want absent", got)
	}
	if list, got, _ := c.List(t.Context(), schema.GroupKind{Group: "example.com", Kind: "Widget"}, ""); got != validators.Present || len(list) != 0 {
		t.Errorf("List of a kind that is not served = %v, %v; want none", list, got)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
