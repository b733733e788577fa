package reference

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// Missing is the rule reference-missing.
//
// It warns, and says no more than that nothing in the tree provides what is named: an operator or a chart may make it, and a person may have. What operators
// are known to make is taken into account.
var Missing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "RF001",
		Name:     "reference-missing",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Reference to an object that nothing in the tree provides",
			Why: "A Pod without its Secret, ConfigMap, ServiceAccount or volume does not start, an ExternalSecret without its store stays empty, a volume without " +
				"its StorageClass is never provisioned. What was made by hand once is missing when the cluster is built anew.",
			Fix: "Correct the name, or add to the tree the object or what makes it, such as an ExternalSecret, and list it in a kustomization. A reference that " +
				"may go unfilled is marked optional: true.",
			Since: "v0.1.0",
		},
		Reads: append([]schema.GroupKind{
			secret, configMap, serviceAccount, volumeClaim, storageClass, secretStore, clusterSecretStore, issuer, clusterIssuer,
			statefulSet, persistentVolume, flux.HelmRelease, flux.Kustomization,
		}, makers()...),
	},
	Check: checkReferences,
}

func checkReferences(ctx context.Context, p *validators.Pass) error {
	checkRookProvisioner(ctx, p)
	var unknown error
	var first reference
	more := 0
	for _, r := range references(ctx, p) {
		presence, err := present(ctx, p, r)
		near := ""
		if presence != validators.Present {
			near = nearest(ctx, p, r)
		}
		switch {
		case presence == validators.Absent:
			report(ctx, p, r, near, "nothing in the tree provides")
		case presence == validators.Unknown && r.to == storageClass && near != "":
			// What was not evaluated may well define the class. Another one of almost that name makes a slip the better guess.
			report(ctx, p, r, near, "nothing that could be evaluated provides")
		case presence == validators.Unknown && unknown == nil:
			unknown, first = err, r
		case presence == validators.Unknown:
			more++
		}
	}
	switch {
	case unknown != nil && more > 0:
		p.Unknown("whether %s and %d more objects that are referred to exist is not known: %v", first, more, unknown)
	case unknown != nil:
		p.Unknown("whether %s exists is not known: %v", first, unknown)
	}
	return nil
}

func report(ctx context.Context, p *validators.Pass, r reference, near, what string) {
	f := p.Report(r.at, r.key.Name, "%s %s", what, r)
	f.Key = r.String()
	if elsewhere := namespacesOf(ctx, p.Lookup, r); len(elsewhere) > 0 {
		f.Message += "; one of that name is in namespace " + strings.Join(elsewhere, ", ")
	} else if near != "" {
		f.Message += "; did you mean " + near + "?"
	}
}

// present tells whether something in the tree is, or makes, what is named.
func present(ctx context.Context, p *validators.Pass, r reference) (validators.Presence, error) {
	_, presence, err := p.Lookup.Get(ctx, r.to, r.key)
	if presence == validators.Present {
		return presence, nil
	}
	if presence == validators.Unknown || r.key.Namespace == "" {
		// What cannot be read, because it is encrypted, is there. A namespace that a kustomization gives to an object without one is ignored by the API server.
		list, _, _ := p.Lookup.List(ctx, r.to, r.key.Namespace)
		for _, o := range list {
			if o.GetName() == r.key.Name {
				return validators.Present, nil
			}
		}
	}
	if made(ctx, p, r) {
		return validators.Present, nil
	}
	if presence == validators.Absent {
		if reason := chartMayMake(ctx, p, r); reason != nil {
			return validators.Unknown, reason
		}
	}
	return presence, err
}

// nearest returns the name of an object of the kind, in the same namespace, that may have been meant.
func nearest(ctx context.Context, p *validators.Pass, r reference) string {
	list, _, _ := p.Lookup.List(ctx, r.to, r.key.Namespace)
	var names []string
	for _, o := range list {
		names = append(names, o.GetName())
	}
	if r.to == storageClass {
		names = append(names, classesOfCharts(ctx, p)...)
	}
	for _, m := range maker(r.to) {
		for _, o := range m.list(ctx, p.Lookup, r.key.Namespace) {
			names = append(names, m.names(o)...)
		}
	}
	slices.Sort(names)
	return suggest.Nearest(r.key.Name, slices.Compact(names))
}

// namespacesOf returns the namespaces that have, or get, an object of the kind and name, sorted.
func namespacesOf(ctx context.Context, look validators.Lookup, r reference) []string {
	if r.key.Namespace == "" {
		return nil
	}
	out := flux.NamespacesOf(ctx, look, r.to, r.key.Name)
	for _, m := range maker(r.to) {
		for _, o := range m.list(ctx, look, "") {
			if o.GetNamespace() != "" && slices.Contains(m.names(o), r.key.Name) {
				out = append(out, o.GetNamespace())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
