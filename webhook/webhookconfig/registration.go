package webhookconfig

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/mutators"
)

// Unregistered returns what a policy mutates and the API server does not send to the mutating webhook, a sentence for
// each; none if all of it is sent as far as names of namespaces can tell. The configuration is nil if there is none.
func Unregistered(c *admissionv1.MutatingWebhookConfiguration, selections []mutators.Selection) []string {
	var out []string
	add := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	for _, s := range selections {
		if c == nil || len(c.Webhooks) == 0 {
			add("spec.mutations.%s selects objects of kind %s, but no mutating webhook is registered", s.Mutator, s.Kind.Kind)
			continue
		}
		var hooks []admissionv1.MutatingWebhook
		for _, w := range c.Webhooks {
			if slices.ContainsFunc(w.Rules, func(r admissionv1.RuleWithOperations) bool { return creates(r, s.Kind) }) {
				hooks = append(hooks, w)
			}
		}
		if len(hooks) == 0 {
			add("spec.mutations.%s selects objects of kind %s, for which the mutating webhook is not registered", s.Mutator, s.Kind.Kind)
			continue
		}
		names := s.Namespaces
		if len(names) == 0 {
			names = []string{"*"}
		}
		for _, name := range names {
			if slices.ContainsFunc(hooks, func(w admissionv1.MutatingWebhook) bool { return sent(w.NamespaceSelector, name) }) {
				continue
			}
			where := "namespace " + name
			if name == "*" {
				where = "all namespaces"
			}
			add("spec.mutations.%s selects objects of kind %s of %s, for which the mutating webhook is not registered",
				s.Mutator, s.Kind.Kind, where)
		}
	}
	return out
}

// creates reports whether a rule matches the creation of objects of the kind.
func creates(r admissionv1.RuleWithOperations, kind schema.GroupKind) bool {
	plural, _ := meta.UnsafeGuessKindToResource(kind.WithVersion("v1"))
	return (slices.Contains(r.Operations, admissionv1.OperationAll) || slices.Contains(r.Operations, admissionv1.Create)) &&
		(slices.Contains(r.APIGroups, "*") || slices.Contains(r.APIGroups, kind.Group)) &&
		slices.ContainsFunc(r.Resources, func(resource string) bool {
			return resource == plural.Resource || resource == "*" || resource == "*/*"
		})
}

// sent reports whether a namespace selector selects the namespace of the name, or each namespace that a name with *
// matches. Selectors by other labels than the name may select any namespace.
func sent(selector *metav1.LabelSelector, name string) bool {
	if selector == nil {
		return true
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return false
	}
	requirements, _ := parsed.Requirements()
	if !strings.Contains(name, "*") {
		byName := k8slabels.NewSelector()
		for _, r := range requirements {
			if r.Key() == corev1.LabelMetadataName {
				byName = byName.Add(r)
			}
		}
		return byName.Matches(k8slabels.Set{corev1.LabelMetadataName: name})
	}
	// A list of names does not have all that a pattern matches. One of excluded names does, except for those that are
	// excluded on purpose.
	return !slices.ContainsFunc(requirements, func(r k8slabels.Requirement) bool {
		return r.Key() == corev1.LabelMetadataName && !excludes(r)
	})
}

func excludes(r k8slabels.Requirement) bool {
	one := k8slabels.NewSelector().Add(r)
	return one.Matches(k8slabels.Set{}) // NotIn and !=, not In, = and Exists
}
