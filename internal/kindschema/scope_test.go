package kindschema

import (
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/flux-admission/flux-admission/validators"
)

// The typed clients of Kubernetes have a method for each kind, which takes the namespace of a namespaced kind.
func TestScopesAreThoseOfTheTypedClients(t *testing.T) {
	scopes := map[string]validators.KindScope{}
	groups := reflect.TypeFor[kubernetes.Interface]()
	for method := range groups.Methods() {
		group := method.Type
		if group.NumOut() != 1 || group.Out(0).Kind() != reflect.Interface || group.NumIn() != 0 {
			continue
		}
		client := group.Out(0)
		for method := range client.Methods() {
			getter := method.Type
			if getter.NumOut() != 1 || getter.Out(0).Kind() != reflect.Interface {
				continue
			}
			create, ok := getter.Out(0).MethodByName("Create")
			if !ok || create.Type.NumIn() < 2 {
				continue
			}
			object, ok := reflect.TypeAssert[runtime.Object](reflect.New(create.Type.In(1).Elem()))
			if !ok {
				continue
			}
			gvks, _, err := scheme.Scheme.ObjectKinds(object)
			if err != nil {
				continue
			}
			scopes[gvks[0].GroupKind().String()] = validators.ScopeCluster
			if getter.NumIn() == 1 {
				scopes[gvks[0].GroupKind().String()] = validators.ScopeNamespaced
			}
		}
	}
	if len(scopes) < 60 {
		t.Fatalf("found %d kinds only", len(scopes))
	}
	types, err := newBuiltInTypes(0)
	if err != nil {
		t.Fatal(err)
	}
	for gk, kind := range types.kinds {
		want, ok := scopes[gk.String()]
		if ok && len(kind.Served) > 0 && kind.Scope != want && !strings.HasSuffix(gk.Group, "imagepolicy.k8s.io") {
			t.Errorf("%s: scope %q, the client has %q", gk, kind.Scope, want)
		}
	}
}
