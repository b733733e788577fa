// Package manifest prepares objects for people: it orders them as Flux applies them, masks what is secret, and writes
// them as YAML or JSON.
package manifest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"

	"github.com/fluxcd/pkg/ssa"
	fluxssa "github.com/fluxcd/pkg/ssa/utils"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/unresolved"
)

// The texts in the place of values that are not shown. They do not depend on the value: even its hash could be guessed.
const (
	// Masked is in the place of a value of a Secret.
	Masked = "***"
	// MaskedSOPS is in the place of a value that SOPS encrypted.
	MaskedSOPS = "**SOPS**"
)

// IsSecret reports whether the values of an object are secret.
func IsSecret(o *unstructured.Unstructured) bool {
	return o.GetKind() == "Secret" && o.GroupVersionKind().Group == ""
}

// Mask returns the object without the values of a Secret and without values that SOPS encrypted. Objects without any are
// returned as they are, others are copied.
func Mask(o *unstructured.Unstructured) *unstructured.Unstructured {
	encrypted := hasEncrypted(o.Object)
	if !IsSecret(o) && !encrypted {
		return o
	}
	o = o.DeepCopy()
	if encrypted {
		maskEncrypted(o.Object)
	}
	if !IsSecret(o) {
		return o
	}
	for _, field := range []string{"data", "stringData"} {
		switch values := o.Object[field].(type) {
		case map[string]any:
			for key, value := range values {
				if value != MaskedSOPS {
					values[key] = Masked
				}
			}
		case nil:
		default:
			o.Object[field] = Masked
		}
	}
	if annotations := o.GetAnnotations(); annotations[corev1.LastAppliedConfigAnnotation] != "" {
		annotations[corev1.LastAppliedConfigAnnotation] = Masked
		o.SetAnnotations(annotations)
	}
	return o
}

// MaskValue returns a value without the texts in it that SOPS encrypted, and whether there are any.
func MaskValue(v any) (masked any, hidden bool) {
	if !hasEncrypted(v) {
		return v, false
	}
	if _, ok := v.(string); ok {
		return MaskedSOPS, true
	}
	v = runtime.DeepCopyJSONValue(v)
	maskEncrypted(v)
	return v, true
}

func hasEncrypted(v any) bool {
	switch v := v.(type) {
	case string:
		return unresolved.IsEncrypted(v)
	case map[string]any:
		for _, value := range v {
			if hasEncrypted(value) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, hasEncrypted)
	}
	return false
}

// maskEncrypted replaces the encrypted texts below a map or list.
func maskEncrypted(v any) {
	replace := func(value any, set func(any)) {
		if text, ok := value.(string); ok && unresolved.IsEncrypted(text) {
			set(MaskedSOPS)
			return
		}
		maskEncrypted(value)
	}
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			replace(value, func(masked any) { v[key] = masked })
		}
	case []any:
		for i, value := range v {
			replace(value, func(masked any) { v[i] = masked })
		}
	}
}

// Order returns the objects in the order in which kustomize-controller applies them: in the stages of
// fluxcd/pkg/ssa.ApplyAllStaged, sorted by kind, namespace and name in each.
func Order(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	stages := make([][]*unstructured.Unstructured, 3)
	for _, o := range objects {
		stage := 2
		switch {
		case fluxssa.IsClusterDefinition(o):
			stage = 0
		case fluxssa.IsClassDefinition(o):
			stage = 1
		}
		stages[stage] = append(stages[stage], o)
	}
	for _, stage := range stages {
		sort.Stable(ssa.SortableUnstructureds(stage))
	}
	return slices.Concat(stages...)
}

// OwnerLabels returns the labels with which Flux's controllers mark what they apply for an object of a kind.
func OwnerLabels(kind schema.GroupKind, owner types.NamespacedName) map[string]string {
	return map[string]string{kind.Group + "/name": owner.Name, kind.Group + "/namespace": owner.Namespace}
}

// WithLabels returns copies of the objects with further labels.
func WithLabels(objects []*unstructured.Unstructured, labels map[string]string) []*unstructured.Unstructured {
	out := make([]*unstructured.Unstructured, 0, len(objects))
	for _, o := range objects {
		o = o.DeepCopy()
		all := o.GetLabels()
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, labels)
		o.SetLabels(all)
		out = append(out, o)
	}
	return out
}

// Group is a number of objects with what applies them.
type Group struct {
	// Title is written as a comment before the objects in YAML.
	Title   string
	Objects []*unstructured.Unstructured
}

// WriteYAML writes the objects as YAML documents.
func WriteYAML(w io.Writer, groups []Group) error {
	for _, g := range groups {
		if len(groups) > 1 && len(g.Objects) > 0 {
			if _, err := fmt.Fprintf(w, "# %s\n", g.Title); err != nil {
				return err
			}
		}
		for _, o := range g.Objects {
			text, err := yaml.Marshal(o.Object)
			if err != nil {
				return fmt.Errorf("writing %s %s as YAML: %w", o.GetKind(), o.GetName(), err)
			}
			if _, err := fmt.Fprintf(w, "---\n%s", text); err != nil {
				return err
			}
		}
	}
	return nil
}

// WriteJSON writes the objects as one List in JSON.
func WriteJSON(w io.Writer, groups []Group) error {
	items := []map[string]any{}
	for _, g := range groups {
		for _, o := range g.Objects {
			items = append(items, o.Object)
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
}
