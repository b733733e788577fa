package lookup_test

import (
	"context"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

var configMapGK = schema.GroupKind{Kind: "ConfigMap"}

// chartSecret reads a Secret as the resolver of charts does.
type chartSecret struct {
	key      types.NamespacedName
	presence validators.Presence
}

func (c *chartSecret) Resolve(
	ctx context.Context, objects validators.Lookup, _ validators.ChartRef,
) (validators.Chart, validators.Presence, error) {
	_, c.presence, _ = objects.Get(ctx, secretGK, c.key)
	return nil, validators.Absent, nil
}

// newWithheld returns a Lookup of a cluster with a Secret and a ConfigMap x in several namespaces, and the number of
// reads of Secrets from the API server.
func newWithheld(charts lookup.Charts) (*lookup.Cluster, *int) {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Version: "v1"}})
	mapper.Add(secretGK.WithVersion("v1"), meta.RESTScopeNamespace)
	mapper.Add(configMapGK.WithVersion("v1"), meta.RESTScopeNamespace)
	reads := new(int)
	b := fake.NewClientBuilder()
	for _, ns := range []string{"tenant", "kube-system", "flux-admission-system"} {
		b.WithObjects(object("Secret", ns, "x"), object("ConfigMap", ns, "x"))
	}
	live := interceptor.NewClient(b.Build(), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if obj.GetObjectKind().GroupVersionKind().Kind == "Secret" {
				*reads++
			}
			if key.Name == "forbidden" {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, errors.New("because"))
			}
			return c.Get(ctx, key, obj, opts...)
		},
	})
	c := lookup.NewCluster(fake.NewClientBuilder().Build(), live, mapper, charts)
	c.Withheld = []string{"kube-system", "flux-admission-system"}
	return c, reads
}

func TestCluster_Withheld(t *testing.T) {
	for name, tc := range map[string]struct {
		withoutSecrets bool
		gk             schema.GroupKind
		namespace      string
		want           validators.Presence
	}{
		"a Secret":                                {false, secretGK, "tenant", validators.Present},
		"a ConfigMap":                             {true, configMapGK, "tenant", validators.Present},
		"a Secret of kube-system":                 {false, secretGK, "kube-system", validators.Unknown},
		"a ConfigMap of kube-system":              {false, configMapGK, "kube-system", validators.Unknown},
		"a Secret of the server's own namespace":  {false, secretGK, "flux-admission-system", validators.Unknown},
		"a Secret, of unauthenticated clients":    {true, secretGK, "tenant", validators.Unknown},
		"no Secret, of unauthenticated clients":   {true, secretGK, "nosuch", validators.Unknown},
		"no Secret of the server's own namespace": {false, secretGK, "flux-admission-system", validators.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			c, reads := newWithheld(nil)
			c.WithoutSecrets = tc.withoutSecrets
			o, got, err := c.Get(t.Context(), tc.gk, types.NamespacedName{Namespace: tc.namespace, Name: "x"})
			if got != tc.want || (o != nil) != (got == validators.Present) {
				t.Errorf("Get = %v, %v; want %v", o, got, tc.want)
			}
			if got == validators.Unknown && (!errors.Is(err, validators.ErrWithheld) || *reads > 0) {
				t.Errorf("error %v after %d reads; want one that is ErrWithheld, and none", err, *reads)
			}
			if _, got, err := c.List(t.Context(), tc.gk, tc.namespace); got != validators.Unknown || !errors.Is(err, validators.ErrWithheld) {
				t.Errorf("List is %v, %v; want unknown", got, err)
			}
		})
	}
}

// Charts of private repositories are read without client authentication, too: the credentials are those of a source
// that exists.
func TestCluster_CredentialsOfSources(t *testing.T) {
	for ns, want := range map[string]validators.Presence{"tenant": validators.Present, "kube-system": validators.Unknown} {
		charts := &chartSecret{key: types.NamespacedName{Namespace: ns, Name: "x"}}
		c, _ := newWithheld(charts)
		c.WithoutSecrets = true
		_, _, _ = c.Chart(t.Context(), validators.ChartRef{})
		if charts.presence != want {
			t.Errorf("a Secret of %s is %v, want %v", ns, charts.presence, want)
		}
	}
}

// The API server is not sent what it has refused a moment ago.
func TestCluster_RemembersForbiddenSecrets(t *testing.T) {
	c, reads := newWithheld(nil)
	for range 5 {
		_, got, err := c.Get(t.Context(), secretGK, types.NamespacedName{Namespace: "tenant", Name: "forbidden"})
		if got != validators.Unknown || !errors.Is(err, validators.ErrWithheld) {
			t.Errorf("presence %v, %v; want unknown and ErrWithheld", got, err)
		}
	}
	if *reads != 1 {
		t.Errorf("%d reads, want 1", *reads)
	}
	if _, got, _ := c.Get(t.Context(), secretGK, types.NamespacedName{Namespace: "tenant", Name: "x"}); got != validators.Present {
		t.Errorf("another Secret is %v, want present", got)
	}
}

// TestCluster_Readable: no request is made for a kind that is not read.
func TestCluster_Readable(t *testing.T) {
	c, reads := newWithheld(nil)
	c.Readable = func(gk schema.GroupKind) bool { return gk == configMapGK }
	key := types.NamespacedName{Namespace: "tenant", Name: "x"}
	if _, presence, err := c.Get(t.Context(), configMapGK, key); presence != validators.Present {
		t.Errorf("a ConfigMap is %s: %v", presence, err)
	}
	if _, presence, err := c.Get(t.Context(), secretGK, key); presence != validators.Unknown || err == nil || *reads != 0 {
		t.Errorf("a Secret is %s after %d reads: %v", presence, *reads, err)
	}
	deployment := schema.GroupKind{Group: "apps", Kind: "Deployment"}
	if list, presence, err := c.List(t.Context(), deployment, ""); presence != validators.Unknown || err == nil || len(list) > 0 {
		t.Errorf("Deployments are %s: %v", presence, err)
	}
}

// TestCluster_MetadataOnly: CustomResourceDefinitions are listed from the informer of their metadata, and read whole.
func TestCluster_MetadataOnly(t *testing.T) {
	gvk := schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{gvk.GroupVersion()})
	mapper.Add(gvk, meta.RESTScopeRoot)
	definition := object(gvk.Kind, "", "widgets.example.com")
	definition.SetAPIVersion("apiextensions.k8s.io/v1")
	definition.Object["spec"] = map[string]any{"group": "example.com"}
	cached := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return errors.New("an informer of whole objects is started")
		},
		List: func(_ context.Context, _ client.WithWatch, list client.ObjectList, _ ...client.ListOption) error {
			metadata, ok := list.(*metav1.PartialObjectMetadataList)
			if !ok {
				return errors.New("an informer of whole objects is started")
			}
			metadata.Items = []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{Name: definition.GetName()}}}
			return nil
		},
	})
	c := lookup.NewCluster(cached, fake.NewClientBuilder().WithObjects(definition).Build(), mapper, nil)
	c.Watched = func(schema.GroupKind) bool { return true }
	list, presence, err := c.List(t.Context(), gvk.GroupKind(), "")
	if presence != validators.Present || len(list) != 1 || list[0].GroupVersionKind() != gvk || list[0].GetName() != definition.GetName() {
		t.Errorf("%v, %s, %v", list, presence, err)
	}
	o, presence, err := c.Get(t.Context(), gvk.GroupKind(), types.NamespacedName{Name: definition.GetName()})
	if presence != validators.Present || o.Object["spec"] == nil {
		t.Errorf("%v, %s, %v", o, presence, err)
	}
}
