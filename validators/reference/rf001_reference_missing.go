package reference

import (
	"context"
	"errors"
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
// It warns and claims no more than that the tree does not contain the object: an operator, a chart or a person may
// create it. Objects that operators are known to create are taken into account.
var Missing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "RF001",
		Name:     "reference-missing",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Referenced object does not exist in the tree",
			Why: "A Pod without its Secret, ConfigMap, ServiceAccount or volume does not start, an ExternalSecret " +
				"without its store stays empty, a volume without its StorageClass is never provisioned, a binding " +
				"without its role grants nothing, a backup without its Cluster never runs. An object that was once " +
				"created by hand is missing when the cluster is rebuilt.",
			Fix: "Correct the name, or add the object or what creates it, such as an ExternalSecret, to the tree " +
				"and list it in a kustomization.yaml. Mark a reference as optional: true if the object may be " +
				"missing.",
			Since: "v0.1.0",
		},
		Reads: append([]schema.GroupKind{
			secret, configMap, serviceAccount, volumeClaim, storageClass, secretStore, clusterSecretStore, issuer, clusterIssuer,
			statefulSet, persistentVolume, role, clusterRole, imageCatalog, clusterImageCatalog, objectStore, flux.HelmRelease, flux.Kustomization,
		}, generatorKinds()...),
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
		if presence != validators.Present && r.byHand {
			continue
		}
		near := ""
		if presence != validators.Present {
			near = nearest(ctx, p, r)
		}
		switch {
		case presence != validators.Present && r.to == serviceAccount && near == "" && mayBeCreatedByOperator(ctx, p, r):
			// A grant to an account that does not exist does no harm.
		case presence == validators.Present:
			checkKeys(ctx, p, r)
		case presence == validators.Absent:
			report(ctx, p, r, near, "does not exist in the tree")
		case presence == validators.Unknown && r.to == storageClass && near != "" &&
			(chartMayCreate(ctx, p, r) == nil || addsWords(r.key.Name, near)):
			// The rest of the tree may define the class, but another class of nearly that name makes a typo more likely.
			// A chart may have several classes with similar names, so its classes count only when a word was added or lost.
			report(ctx, p, r, near, "does not exist in the evaluated part of the tree")
		case presence == validators.Unknown && isUnlikely(err) != nil:
			reportUnlikely(ctx, p, r, near, isUnlikely(err))
		case presence == validators.Unknown && unknown == nil:
			unknown, first = err, r
		case presence == validators.Unknown:
			more++
		}
	}
	switch {
	case unknown != nil && more > 0:
		p.Unknown("cannot determine whether %s and %d other referenced objects exist: %v", first, more, unknown)
	case unknown != nil:
		p.Unknown("cannot determine whether %s exists: %v", first, unknown)
	}
	return nil
}

// isUnlikely returns the explanation of an Unknown that is nearly an Absent; nil if it is not.
func isUnlikely(err error) *validators.Unlikely {
	unlikely, _ := errors.AsType[*validators.Unlikely](err)
	return unlikely
}

func reportUnlikely(ctx context.Context, p *validators.Pass, r reference, near string, unlikely *validators.Unlikely) {
	f := report(ctx, p, r, near, "does not exist in the tree")
	f.Message += "; unless it is in " + unlikely.Text
	f.Uncertain = true
}

func report(ctx context.Context, p *validators.Pass, r reference, near, problem string) *validators.Finding {
	f := p.Report(r.at, r.key.Name, "%s %s", r, problem)
	f.Key = r.String()
	if namespaces := namespacesOf(ctx, p.Lookup, r); len(namespaces) > 0 {
		f.Message += "; one exists in namespace " + strings.Join(namespaces, ", ")
	} else if near != "" {
		f.Message += "; did you mean " + near + "?"
	}
	return f
}

// present reports whether the tree contains the referenced object, or one that creates it.
func present(ctx context.Context, p *validators.Pass, r reference) (validators.Presence, error) {
	_, presence, err := p.Lookup.Get(ctx, r.to, r.key)
	if presence == validators.Present {
		return presence, nil
	}
	if presence == validators.Unknown || r.key.Namespace == "" {
		// An encrypted object cannot be read, but exists. The API server ignores the namespace that a kustomization sets on a
		// cluster-scoped object.
		list, _, _ := p.Lookup.List(ctx, r.to, r.key.Namespace)
		for _, o := range list {
			if o.GetName() == r.key.Name {
				return validators.Present, nil
			}
		}
	}
	if generated(ctx, p, r) {
		return validators.Present, nil
	}
	if presence == validators.Absent {
		if reason := chartMayCreate(ctx, p, r); reason != nil {
			return validators.Unknown, reason
		}
	}
	return presence, err
}

// nearest returns the most similar name of an object of the kind in the same namespace; empty if none is similar.
func nearest(ctx context.Context, p *validators.Pass, r reference) string {
	list, _, _ := p.Lookup.List(ctx, r.to, r.key.Namespace)
	var names []string
	for _, o := range list {
		names = append(names, o.GetName())
	}
	if r.to == storageClass {
		names = append(names, classesOfCharts(ctx, p)...)
	}
	for _, g := range generatorsOf(r.to) {
		for _, o := range g.list(ctx, p.Lookup, r.key.Namespace) {
			names = append(names, g.names(o)...)
		}
	}
	slices.Sort(names)
	return suggest.Nearest(r.key.Name, slices.Compact(names))
}

// namespacesOf returns the namespaces in which an object of the kind and name exists or is created, sorted.
func namespacesOf(ctx context.Context, look validators.Lookup, r reference) []string {
	if r.key.Namespace == "" {
		return nil
	}
	out := flux.NamespacesOf(ctx, look, r.to, r.key.Name)
	for _, g := range generatorsOf(r.to) {
		for _, o := range g.list(ctx, look, "") {
			if o.GetNamespace() != "" && slices.Contains(g.names(o), r.key.Name) {
				out = append(out, o.GetNamespace())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
