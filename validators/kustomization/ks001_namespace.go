// Package kustomization holds the rules on Flux Kustomizations.
package kustomization

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/match"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// NamespaceParams are the parameters of kustomization-namespace.
type NamespaceParams struct {
	// AllowedNamespaces are the names of the namespaces that a Flux Kustomization may live in; * matches any characters, as in team-*.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:default={"flux-system"}
	// +listType=set
	AllowedNamespaces []string `json:"allowedNamespaces,omitempty"`
	// AllowedNamespaceSelector allows the namespaces with these labels as well.
	// +optional
	AllowedNamespaceSelector *metav1.LabelSelector `json:"allowedNamespaceSelector,omitempty"`

	selector labels.Selector
}

// Compile checks and prepares the names and the selector.
func (n *NamespaceParams) Compile() error {
	for i, name := range n.AllowedNamespaces {
		if err := match.NamespacePattern(name); err != nil {
			return fmt.Errorf("allowedNamespaces[%d]: %w", i, err)
		}
	}
	n.selector = nil
	if n.AllowedNamespaceSelector == nil {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(n.AllowedNamespaceSelector)
	if err != nil {
		return fmt.Errorf("allowedNamespaceSelector: %w", err)
	}
	n.selector = selector
	return nil
}

// Namespace is the rule kustomization-namespace.
//
// A parent's `namespace:` transformer may move a Kustomization that looks right in Git; it then fails when its
// GitRepository or its dependsOn is not in the new namespace. The rule checks the namespace in which the API server
// stores the object.
var Namespace = &validators.Rule{
	Meta: validators.Meta{
		ID:         "KS001",
		Name:       "kustomization-namespace",
		Scope:      validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:     validators.StageAll,
		Convention: true,
		Severity:   validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionWarn,
			Reason: "Most repositories keep Kustomizations in namespaces of their own on purpose, so check only warns.",
		},
		Doc: validators.Doc{
			Title: "Namespace of the Kustomization is not allowed",
			Why: "Names in sourceRef, dependsOn, decryption and serviceAccountName refer to objects in the " +
				"Kustomization's own namespace. In the wrong namespace they name other objects or none: the " +
				"Kustomization never becomes ready, and everything that depends on it waits.",
			Fix: "Set metadata.namespace to an allowed namespace. Look for a `namespace:` in the " +
				"kustomization.yaml of a parent directory, or a targetNamespace of the parent Kustomization: they " +
				"change it.",
			Since: "v0.1.0",
		},
		Reads:  []schema.GroupKind{{Kind: "Namespace"}},
		Group:  "kustomization-namespace",
		Params: func() any { return &NamespaceParams{AllowedNamespaces: []string{"flux-system"}} },
	},
	Check: checkNamespace,
}

func checkNamespace(ctx context.Context, p *validators.Pass) error {
	params := p.Params.(*NamespaceParams)
	allowed := params.AllowedNamespaces
	ns := p.Object.GetNamespace()
	if ns != "" && match.Name(allowed, ns) {
		return nil
	}
	if params.selector != nil && ns != "" {
		switch o, presence, err := p.Lookup.Namespace(ctx, ns); {
		case presence == validators.Unknown:
			p.Unknown("cannot determine the labels of namespace %s: %v", ns, err)
			return nil
		case presence == validators.Present && params.selector.Matches(labels.Set(o.GetLabels())):
			return nil
		}
	}
	quoted := make([]string, 0, len(allowed)+1)
	for _, name := range allowed {
		quoted = append(quoted, strconv.Quote(name))
	}
	if params.selector != nil {
		quoted = append(quoted, "a namespace with the labels "+params.selector.String())
	}
	want := "must be " + strings.Join(quoted, " or ")
	f := p.Report(validators.NewPath("metadata", "namespace"), ns, "namespace %q is not allowed; %s", ns, want)
	// The service account of a tenant is in the tenant's namespace, and the Kustomization with it.
	account, _, _ := unstructured.NestedString(p.Object.Object, "spec", "serviceAccountName")
	f.OnPurpose = ns != "" && account != ""
	if ns == "" {
		f.Message = "the Kustomization has no namespace; " + want
	}
	if len(quoted) == 1 && len(allowed) == 1 && !match.IsPattern(allowed[0]) && p.Provenance != nil && movable(ctx, p, allowed[0]) {
		op := validators.EditReplace
		if ns == "" {
			op = validators.EditAdd
		}
		f.Edits = []validators.Edit{{Op: op, Path: f.Path, Value: allowed[0]}}
	}
	return nil
}

// movable reports whether the Kustomization does in another namespace what it would do in its own. It does not if it runs as a tenant, with a
// service account of its own, or if a name in it refers to an object of its own namespace: then it belongs there, and the policy does not fit.
func movable(ctx context.Context, p *validators.Pass, to string) bool {
	own := p.Object.GetNamespace()
	if own == "" {
		return true // it is nowhere yet
	}
	spec, _ := p.Object.Object["spec"].(map[string]any)
	if account, _ := spec["serviceAccountName"].(string); account != "" {
		return false
	}
	for _, r := range ownReferences(spec) {
		if r.namespace != "" && r.namespace != own {
			continue // it is the same object from everywhere
		}
		if _, presence, _ := p.Lookup.Get(ctx, r.kind, types.NamespacedName{Namespace: own, Name: r.name}); presence != validators.Absent {
			return false
		}
		if r.namespace != "" {
			return false // written for the namespace that it is in
		}
		if _, presence, _ := p.Lookup.Get(ctx, r.kind, types.NamespacedName{Namespace: to, Name: r.name}); presence != validators.Present {
			return false
		}
	}
	all, presence, err := p.Lookup.List(ctx, flux.Kustomization, "")
	if err != nil || presence != validators.Present {
		return true // the rule of dependencies reports who waits for it
	}
	for _, other := range all {
		dependsOn, _, _ := unstructured.NestedSlice(other.Object, "spec", "dependsOn")
		for _, d := range dependsOn {
			m, _ := d.(map[string]any)
			namespace, _ := m["namespace"].(string)
			if m["name"] == p.Object.GetName() && cmp.Or(namespace, other.GetNamespace()) == own {
				return false
			}
		}
	}
	return true
}

// ownReference is an object that the spec names; without a namespace, it is one of the Kustomization's own.
type ownReference struct {
	kind            schema.GroupKind
	namespace, name string
}

// ownReferences returns the objects that a Kustomization needs before it applies anything.
func ownReferences(spec map[string]any) []ownReference {
	var out []ownReference
	add := func(kind schema.GroupKind, ref any) {
		m, _ := ref.(map[string]any)
		name, _ := m["name"].(string)
		namespace, _ := m["namespace"].(string)
		if name != "" {
			out = append(out, ownReference{kind, namespace, name})
		}
	}
	nested := func(fields ...string) any {
		v, _, _ := unstructured.NestedFieldNoCopy(spec, fields...)
		return v
	}
	list := func(v any) []any {
		l, _ := v.([]any)
		return l
	}
	if source, _ := spec["sourceRef"].(map[string]any); source != nil {
		kind, _ := source["kind"].(string)
		add(schema.GroupKind{Group: flux.GitRepository.Group, Kind: kind}, source)
	}
	for _, d := range list(spec["dependsOn"]) {
		add(flux.Kustomization, d)
	}
	for _, ref := range list(nested("postBuild", "substituteFrom")) {
		m, _ := ref.(map[string]any)
		kind, _ := m["kind"].(string)
		add(schema.GroupKind{Kind: kind}, ref)
	}
	add(schema.GroupKind{Kind: "Secret"}, nested("decryption", "secretRef"))
	add(schema.GroupKind{Kind: "Secret"}, nested("kubeConfig", "secretRef"))
	add(schema.GroupKind{Kind: "ConfigMap"}, nested("kubeConfig", "configMapRef"))
	return out
}
