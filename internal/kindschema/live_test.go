package kindschema_test

import (
	"context"
	"reflect"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/validators"
)

// counting counts the definitions that are read whole.
type counting struct {
	client.Client
	whole int
	err   error
}

func (c *counting) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if c.err != nil {
		return c.err
	}
	if _, ok := o.(*unstructured.Unstructured); ok {
		c.whole++
	}
	return c.Client.Get(ctx, key, o, opts...)
}

func live(t *testing.T, objects ...client.Object) (*kindschema.Live, *counting) {
	t.Helper()
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{
		{Group: "example.com", Version: "v2"}, {Group: "example.com", Version: "v1beta1"}, {Group: "apps", Version: "v1"}, {Group: "apiextensions.k8s.io", Version: "v1"},
	})
	for _, gvk := range []schema.GroupVersionKind{
		{Group: "example.com", Version: "v1beta1", Kind: "Widget"}, {Group: "example.com", Version: "v2", Kind: "Widget"},
		{Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
	} {
		mapper.Add(gvk, meta.RESTScopeNamespace)
	}
	c := &counting{Client: fake.NewClientBuilder().WithScheme(runtime.NewScheme()).WithRESTMapper(mapper).WithObjects(objects...).Build()}
	l, err := kindschema.NewLive(c, mapper)
	if err != nil {
		t.Fatal(err)
	}
	return l, c
}

func TestLive(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "customresourcedefinitions"}, "widgets.example.com", nil)
	for name, tc := range map[string]struct {
		kind     schema.GroupKind
		installs bool
		err      error
		presence validators.Presence
		served   []string
		schema   string // the error for it
	}{
		"a custom resource has the schema of its definition": {kind: widgetKind, installs: true, presence: validators.Present, served: []string{"v2", "v1beta1"}},
		"a kind of Kubernetes' own needs no definition":      {kind: schema.GroupKind{Group: "apps", Kind: "Deployment"}, presence: validators.Present, served: []string{"v1"}},
		"a kind that is not served is absent":                {kind: schema.GroupKind{Group: "example.com", Kind: "Gadget"}, presence: validators.Absent},
		"a served kind without a definition has no schema that is known": {
			kind: widgetKind, presence: validators.Present, served: []string{"v2", "v1beta1"},
			schema: `reading the CustomResourceDefinition of Widget (example.com): customresourcedefinitions.apiextensions.k8s.io "widgets.example.com" not found`,
		},
		"a definition that may not be read is said": {
			kind: widgetKind, installs: true, err: forbidden, presence: validators.Present, served: []string{"v2", "v1beta1"},
			schema: `reading the CustomResourceDefinition of Widget (example.com): customresourcedefinitions "widgets.example.com" is forbidden: <nil>`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var objects []client.Object
			if tc.installs {
				objects = append(objects, object(t, widget))
			}
			l, c := live(t, objects...)
			c.err = tc.err
			kind, presence, err := l.Kind(t.Context(), tc.kind)
			if presence != tc.presence || err != nil {
				t.Fatalf("presence %s, error %v, want %s", presence, err, tc.presence)
			}
			if kind == nil {
				return
			}
			if !reflect.DeepEqual(kind.Served, tc.served) || !kind.Installed {
				t.Errorf("serves %q, want %q", kind.Served, tc.served)
			}
			_, err = kind.Schemas.Schema(tc.served[0])
			if got := textOf(err); got != tc.schema {
				t.Errorf("schema: error %q, want %q", got, tc.schema)
			}
		})
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestLiveReadsADefinitionAgainOnlyWhenItChanged(t *testing.T) {
	l, c := live(t, object(t, widget))
	for range 3 {
		if _, _, err := l.Kind(t.Context(), widgetKind); err != nil {
			t.Fatal(err)
		}
	}
	if c.whole != 1 {
		t.Errorf("the definition was read %d times, want once", c.whole)
	}
	o := object(t, widget)
	if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
	o.SetLabels(map[string]string{"changed": "yes"})
	if err := c.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Kind(t.Context(), widgetKind); err != nil {
		t.Fatal(err)
	}
	if c.whole != 2 {
		t.Errorf("the definition was read %d times after a change, want twice", c.whole)
	}
}
