// Package targetnamespace sets a missing spec.targetNamespace of Flux objects to the namespace that a policy names.
package targetnamespace

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flux-admission/flux-admission/internal/match"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// Setting selects objects and names their targetNamespace. The first setting that selects an object applies.
// +kubebuilder:validation:XValidation:rule="has(self.targetNamespace) != has(self.targetNamespaceLabel)",message="set exactly one of targetNamespace and targetNamespaceLabel"
type Setting struct {
	// Match selects the objects. Kustomizations alone unless kinds names HelmRelease.
	// +optional
	Match match.Match `json:"match,omitempty"`
	// TargetNamespace is the namespace, as a constant or with named groups of match.path: "{ns}", "team-{ns}".
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	TargetNamespace string `json:"targetNamespace,omitempty"`
	// TargetNamespaceLabel is the key of the label of the object whose value is the namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	// +optional
	TargetNamespaceLabel string `json:"targetNamespaceLabel,omitempty"`
}

// Settings are the policy's settings for the mutator, in order.
// +kubebuilder:validation:MaxItems=64
// +listType=atomic
type Settings []Setting

var placeholder = regexp.MustCompile(`\{([^{}]*)\}`)

// Compile checks and prepares the settings. The error names each offending field, relative to the list:
// "[0].match.path: ...".
func (s Settings) Compile() error {
	var errs []error
	for i := range s {
		if err := s[i].compile(); err != nil {
			errs = append(errs, fmt.Errorf("[%d].%w", i, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Setting) compile() error {
	if err := s.Match.Compile(); err != nil {
		return fmt.Errorf("match.%w", err)
	}
	if (s.TargetNamespace == "") == (s.TargetNamespaceLabel == "") {
		return errors.New("targetNamespace: set exactly one of targetNamespace and targetNamespaceLabel")
	}
	if s.TargetNamespaceLabel != "" {
		if bad := validation.IsQualifiedName(s.TargetNamespaceLabel); len(bad) > 0 {
			return fmt.Errorf("targetNamespaceLabel: %q is not a label key: %s", s.TargetNamespaceLabel, strings.Join(bad, "; "))
		}
		return nil
	}
	groups := s.Match.Groups()
	for _, m := range placeholder.FindAllStringSubmatch(s.TargetNamespace, -1) {
		if !slices.Contains(groups, m[1]) {
			return fmt.Errorf(
				"targetNamespace: %s is not a named group of match.path; write it there as (?P<%s>[^/]+)",
				m[0],
				m[1],
			)
		}
	}
	if rest := placeholder.ReplaceAllString(s.TargetNamespace, "x"); len(validation.IsDNS1123Label(rest)) > 0 {
		return fmt.Errorf(
			"targetNamespace: %q cannot become a namespace name: %s",
			s.TargetNamespace,
			strings.Join(validation.IsDNS1123Label(rest), "; "),
		)
	}
	return nil
}

// Selections implements mutators.Selector.
func (s Settings) Selections() []mutators.Selection {
	var out []mutators.Selection
	for i := range s {
		for _, kind := range []schema.GroupKind{flux.Kustomization, flux.HelmRelease} {
			if s[i].Match.Kind(kind.Kind) {
				out = append(out, mutators.Selection{Kind: kind, Namespaces: s[i].Match.Namespaces})
			}
		}
	}
	return out
}

// namespaceFor returns the namespace of the object; matched is false if the setting does not select the object.
func (s *Setting) namespaceFor(ctx context.Context, o *unstructured.Unstructured) (ns string, matched bool, err error) {
	captures, ok, err := s.Match.Object(ctx, o)
	if err != nil || !ok {
		return "", false, err
	}
	if s.TargetNamespaceLabel != "" {
		return o.GetLabels()[s.TargetNamespaceLabel], true, nil
	}
	return placeholder.ReplaceAllStringFunc(s.TargetNamespace, func(m string) string {
		return captures[strings.Trim(m, "{}")]
	}), true, nil
}

// name is the key in the policy's mutations.
const name = "target-namespace"

// Mutator is the mutator target-namespace.
//
// It sets the field on CREATE only. Changing targetNamespace of a stored object is destructive: helm-controller
// uninstalls the release and installs it in the other namespace, kustomize-controller prunes what it applied to the old
// one. On UPDATE it only restores the stored value if the applied object has none, and warns if a user changes it.
var Mutator = &mutators.Mutator{
	Name:  name,
	Kinds: []schema.GroupKind{flux.Kustomization, flux.HelmRelease},
	Doc: validators.Doc{
		Title: "Set a missing spec.targetNamespace",
		Why: "Without targetNamespace a team's objects are applied to the namespaces in their files. " +
			"A path, a label or a constant in the policy names the namespace, so that nobody has to write it.",
		Fix:   "Nothing: an object with the field is never changed.",
		Since: "v0.1.0",
	},
	Reads:    []schema.GroupKind{{Kind: "Namespace"}},
	Settings: func() any { return &Settings{} },
	Mutate:   mutate,
}

var fieldPath = validators.NewPath("spec", "targetNamespace")

func mutate(ctx context.Context, p *mutators.Pass) error {
	settings := *p.Settings.(*Settings)
	want, matched := "", false
	for i := range settings {
		var err error
		if want, matched, err = settings[i].namespaceFor(ctx, p.Object); err != nil {
			p.Skip("spec.targetNamespace was not set: %v", err)
			return nil
		}
		if matched {
			break
		}
	}
	if !matched {
		return nil
	}
	if _, isMap := p.Object.Object["spec"].(map[string]any); !isMap {
		p.Skip("the object has no spec")
		return nil
	}
	got := targetNamespace(p.Object)
	if p.Operation == validators.Update {
		restore(p, got)
		return nil
	}
	switch {
	case got != "":
		return nil
	case want == "":
		p.Skip("spec.targetNamespace was not set: the label is missing or empty, or match.path captured nothing")
		return nil
	case len(validation.IsDNS1123Label(want)) > 0:
		p.Skip("spec.targetNamespace was not set: %q is not a valid namespace name", want)
		return nil
	}
	switch _, presence, err := p.Lookup.Namespace(ctx, want); presence {
	case validators.Present:
		p.Edit(
			validators.Edit{Op: validators.EditAdd, Path: fieldPath, Value: want},
			"the policy maps this %s to namespace %s",
			p.Object.GetKind(),
			want,
		)
	case validators.Absent:
		p.Warn("spec.targetNamespace was not set: namespace %q does not exist; create it first, or set the field", want)
		p.Skip("spec.targetNamespace was not set: namespace %q does not exist", want)
	case validators.Unknown:
		p.Skip("spec.targetNamespace was not set: cannot determine whether namespace %q exists: %v", want, err)
	}
	return nil
}

func restore(p *mutators.Pass, got string) {
	if p.Old == nil {
		return
	}
	switch old := targetNamespace(p.Old); {
	case old == "" || old == got:
	case got == "":
		p.Warn("spec.targetNamespace stays %s: removing it would move what is applied; to remove it all the same, take this %s out of "+
			"spec.mutations.%s of the AdmissionPolicy first", old, p.Object.GetKind(), name)
		p.Edit(
			validators.Edit{Op: validators.EditAdd, Path: fieldPath, Value: old},
			"the stored object has targetNamespace %s, which the applied object lacks",
			old,
		)
	case p.Object.GetKind() == flux.HelmRelease.Kind:
		p.Warn(
			"targetNamespace changes from %s to %s: helm-controller will uninstall the release from %s and install it in %s",
			old,
			got,
			old,
			got,
		)
	default:
		prune, _, _ := unstructured.NestedBool(p.Object.Object, "spec", "prune")
		if prune {
			p.Warn(
				"targetNamespace changes from %s to %s: with prune on, Flux will delete what this Kustomization applied to %s",
				old,
				got,
				old,
			)
		} else {
			p.Warn(
				"targetNamespace changes from %s to %s: what this Kustomization applied to %s stays there unmanaged",
				old,
				got,
				old,
			)
		}
	}
}

func targetNamespace(o *unstructured.Unstructured) string {
	ns, _, _ := unstructured.NestedString(o.Object, "spec", "targetNamespace")
	return ns
}
