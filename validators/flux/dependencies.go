package flux

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

var dependsOn = validators.NewPath("spec", "dependsOn")

// dependency is an entry of spec.dependsOn.
type dependency struct {
	at  validators.Path
	key types.NamespacedName
}

// dependencies returns the entries of an object's spec.dependsOn. Their default namespace is the object's own. Entries
// without a name are skipped: the CRDs reject them.
func dependencies(o *unstructured.Unstructured) []dependency {
	list, _ := dependsOn.Lookup(o.Object).([]any)
	out := make([]dependency, 0, len(list))
	for i, item := range list {
		entry, _ := item.(map[string]any)
		name, _ := entry["name"].(string)
		namespace, _ := entry["namespace"].(string)
		if name == "" {
			continue
		}
		if namespace == "" {
			namespace = o.GetNamespace()
		}
		out = append(out, dependency{dependsOn.Index(i), types.NamespacedName{Namespace: namespace, Name: name}})
	}
	return out
}

// CheckDependencies reports the entries of spec.dependsOn that name an object of the kind that does not exist.
// The API resolves them within one kind: a Kustomization that names a HelmRelease waits forever, and so does the reverse.
func CheckDependencies(ctx context.Context, p *validators.Pass, gk schema.GroupKind) {
	other := HelmRelease
	if gk == HelmRelease {
		other = Kustomization
	}
	for _, d := range dependencies(p.Object) {
		Reference{At: d.at, To: gk, Key: d.key, What: "the dependency " + d.key.String(), Other: other}.Check(ctx, p)
	}
}
