// Package match selects Flux objects by kind, namespace, path and labels, for the parameters of rules and mutators.
package match

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/boundedregexp"
)

// Match selects objects. An object must match every field that is set. An empty Match selects every object.
type Match struct {
	// Kinds are the kinds of the objects, Kustomization or HelmRelease. Defaults to Kustomization.
	// +kubebuilder:validation:items:Enum=Kustomization;HelmRelease
	// +kubebuilder:validation:MaxItems=2
	// +listType=set
	// +optional
	Kinds []string `json:"kinds,omitempty"`
	// Namespaces are the names of the namespaces of the objects; * matches any characters.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`
	// Path is a regular expression (RE2) that matches spec.path of a Kustomization, cleaned as Flux does: "./apps/x" for "apps/x/", "/apps/x"
	// and "./y/../apps/x". It is not anchored; use ^ and $. Its named groups, such as (?P<ns>[^/]+), can be used in targetNamespace.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Path string `json:"path,omitempty"`
	// Labels are labels of the objects.
	// +kubebuilder:validation:MaxProperties=16
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	path *boundedregexp.Regexp
}

// Compile compiles Path. It must be called once before Object.
func (m *Match) Compile() error {
	m.path = nil
	for i, n := range m.Namespaces {
		if err := NamespacePattern(n); err != nil {
			return fmt.Errorf("namespaces[%d]: %w", i, err)
		}
	}
	if m.Path == "" {
		return nil
	}
	if slices.Contains(m.Kinds, "HelmRelease") {
		return fmt.Errorf("path: a HelmRelease has no spec.path; remove HelmRelease from kinds or remove path")
	}
	re, err := boundedregexp.Compile(m.Path)
	if errors.Is(err, boundedregexp.ErrTooComplex) {
		return fmt.Errorf("path: use fewer or smaller repetitions: %w", err)
	}
	if err != nil {
		return fmt.Errorf("path: not a regular expression (RE2 syntax): %w", err)
	}
	m.path = re
	return nil
}

// Groups returns the names of the capture groups of Path.
func (m *Match) Groups() []string {
	var names []string
	if m.path == nil {
		return nil
	}
	for _, n := range m.path.Groups() {
		if n != "" {
			names = append(names, n)
		}
	}
	return names
}

// Kind reports whether objects of the kind can be selected.
func (m *Match) Kind(kind string) bool {
	if len(m.Kinds) == 0 {
		return kind == "Kustomization"
	}
	return slices.Contains(m.Kinds, kind)
}

// Object reports whether the object is selected, and returns the captures of the named groups of Path. An
// error means that spec.path cannot be matched: it is too long, or the context is done.
func (m *Match) Object(ctx context.Context, o *unstructured.Unstructured) (captures map[string]string, ok bool, err error) {
	if !m.Kind(o.GetKind()) {
		return nil, false, nil
	}
	if len(m.Namespaces) > 0 && !Name(m.Namespaces, o.GetNamespace()) {
		return nil, false, nil
	}
	if len(m.Labels) > 0 {
		labels := o.GetLabels()
		for k, v := range m.Labels {
			if got, found := labels[k]; !found || got != v {
				return nil, false, nil
			}
		}
	}
	if m.path == nil {
		return nil, true, nil
	}
	p, _, _ := unstructured.NestedString(o.Object, "spec", "path")
	sub, err := m.find(ctx, p)
	if err != nil {
		return nil, false, fmt.Errorf("spec.path: %w", err)
	}
	if sub == nil {
		return nil, false, nil
	}
	captures = map[string]string{}
	for i, n := range m.path.Groups() {
		if n != "" {
			captures[n] = sub[i]
		}
	}
	return captures, true, nil
}

// find returns the submatches of Path in a spec.path. Flux joins the path to the root of the source, which it cannot leave, so that many spellings are
// one directory. Path is evaluated on the cleaned path only, written in each of the three ways in which an author may anchor it: "./a", "a" and "/a".
func (m *Match) find(ctx context.Context, specPath string) ([]string, error) {
	cleaned := path.Clean("/" + specPath)
	for _, spelling := range []string{"." + cleaned, cleaned[1:], cleaned} {
		if sub, err := m.path.Submatches(ctx, spelling); err != nil || sub != nil {
			return sub, err
		}
	}
	return nil, nil
}
