package check

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
)

// Cluster is what a running cluster has beside the build of one of its Kustomizations.
type Cluster struct {
	Policy *policy.Policy
	Lookup validators.Lookup
	// Definition returns the CustomResourceDefinition of a kind; nil if it is not known or about to change.
	Definition func(context.Context, schema.GroupKind) *unstructured.Unstructured
	// Excluded are namespaces that are not evaluated.
	Excluded []string
}

// Applied is the evaluation of a build.
type Applied struct {
	// Findings have the actions of the mode Enforce.
	Findings []report.Finding
	// Inconclusive means that a rule could not be evaluated, Pending that it can be a moment later.
	Inconclusive, Pending bool
	// Kinds are the kinds that were evaluated with the cluster's definition.
	Kinds []schema.GroupKind
}

// EvaluateApplied evaluates the objects that one Kustomization is about to apply to a running cluster, as Evaluate does those of a tree. What neither
// the build nor the cluster has is unknown: another Kustomization may be about to apply it. The Kustomization itself is evaluated by the rules on its
// build only: it is stored in the cluster, or evaluated with the objects of the one that applies it.
func EvaluateApplied(ctx context.Context, built *kustomization.Result, in Cluster) (Applied, error) {
	var out Applied
	c := built.Clusters[0]
	kinds, err := kindschema.NewSet(kindschema.Options{})
	if err != nil {
		return out, fmt.Errorf("reading the schemas of Kubernetes: %w", err)
	}
	for _, o := range c.Objects {
		if o.GroupVersionKind().GroupKind() == kindschema.CustomResourceDefinition {
			// An invalid definition leaves its kind unknown.
			_ = kinds.Add(o.Origin.File, o.Unstructured)
		}
	}
	seen := map[schema.GroupKind]bool{}
	for _, o := range c.Objects {
		gk := o.GroupVersionKind().GroupKind()
		if seen[gk] {
			continue
		}
		seen[gk] = true
		if _, presence, _ := kinds.Kind(ctx, gk); presence != validators.Unknown {
			continue
		}
		if d := in.Definition(ctx, gk); d != nil {
			out.Kinds = append(out.Kinds, gk)
			_ = kinds.AddExternal("the cluster", d) // as above
		}
	}
	t := &Tree{Built: built}
	e := &evaluation{tree: t, report: &report.Report{}, comments: readComments(built)}
	p := []*clusterPolicy{{Policy: in.Policy}}
	look := lookup.WithKinds(&builtLookup{Lookup: in.Lookup, built: c.Lookup(nil)}, kinds)
	root := built.Root()
	for _, task := range tasksOf(c, p, look) {
		if err := ctx.Err(); err != nil {
			return out, fmt.Errorf("evaluating the Kustomization %s: %w", root.Key, err)
		}
		if slices.Contains(in.Excluded, task.request.Object.GetNamespace()) {
			continue
		}
		d := in.Policy.EvaluateFrom(ctx, task.request, task.look, policy.Origin{Files: task.files})
		isRoot := task.built == root.Object
		for _, f := range d.Enforced() {
			// Conventions are those of a whole tree.
			if f.Finding.Rule.Convention || isRoot && f.Finding.Rule.Stages != validators.StageOffline {
				continue
			}
			finding := e.finding(task.subject, f.Finding, f.Action)
			if f.Exemption != nil {
				finding.Suppressed = &report.Suppression{By: report.ByExemption, Reason: f.Exemption.Reason}
			}
			out.Findings = append(out.Findings, finding)
		}
		out.Inconclusive = out.Inconclusive || len(d.Unknown)+len(d.Errors) > 0
		for _, u := range d.Unknown {
			_, pending := errors.AsType[*validators.Pending](u.Cause)
			out.Pending = out.Pending || pending
		}
	}
	return out, nil
}

// errNotApplied is why an object is Unknown that neither a build nor the cluster has.
var errNotApplied = errors.New("the cluster does not have it yet; another Kustomization may apply it")

// builtLookup is a Lookup of a running cluster to which a build is about to be applied.
type builtLookup struct {
	validators.Lookup
	built validators.Lookup
}

// Get implements validators.Lookup.
func (l *builtLookup) Get(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) (*unstructured.Unstructured, validators.Presence, error) {
	if o, p, err := l.built.Get(ctx, gk, key); p == validators.Present {
		return o, p, err
	}
	o, p, err := l.Lookup.Get(ctx, gk, key)
	if p == validators.Absent {
		return nil, validators.Unknown, errNotApplied
	}
	return o, p, err
}

// List implements validators.Lookup. What the cluster has may be about to be deleted, so that the list has built objects only.
func (l *builtLookup) List(ctx context.Context, gk schema.GroupKind, namespace string) ([]*unstructured.Unstructured, validators.Presence, error) {
	list, _, _ := l.built.List(ctx, gk, namespace)
	return list, validators.Unknown, errNotApplied
}

// Namespace implements validators.Lookup.
func (l *builtLookup) Namespace(ctx context.Context, name string) (*unstructured.Unstructured, validators.Presence, error) {
	return l.Get(ctx, schema.GroupKind{Kind: "Namespace"}, types.NamespacedName{Name: name})
}

// Chart implements validators.Lookup. A chart whose source the build changes is Unknown: the cluster has the old one.
func (l *builtLookup) Chart(ctx context.Context, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	gk := schema.GroupKind{Group: ref.Source.Group, Kind: ref.Source.Kind}
	key := types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name}
	if o, p, _ := l.built.Get(ctx, gk, key); p == validators.Present {
		stored, _, _ := l.Lookup.Get(ctx, gk, key)
		if stored == nil || !sameSource(o, stored) {
			return nil, validators.Unknown, fmt.Errorf("%s %s changes with the same commit", gk.Kind, key)
		}
	}
	chart, p, err := l.Lookup.Chart(ctx, ref)
	if p == validators.Absent {
		return nil, validators.Unknown, errNotApplied
	}
	return chart, p, err
}

// sameSource reports whether a source that is about to be applied has the charts of the stored one.
func sameSource(built, stored *unstructured.Unstructured) bool {
	for _, field := range []string{"url", "type", "provider", "bucketName", "endpoint", "prefix", "ref"} {
		x, _, _ := unstructured.NestedFieldNoCopy(built.Object, "spec", field)
		y, _, _ := unstructured.NestedFieldNoCopy(stored.Object, "spec", field)
		defaulted := x == nil && (field == "type" || field == "provider")
		if !defaulted && !equality.Semantic.DeepEqual(x, y) {
			return false
		}
	}
	return true
}

// Build implements validators.Lookup.
func (l *builtLookup) Build(ctx context.Context, key types.NamespacedName) (*validators.Build, validators.Presence, error) {
	return l.built.Build(ctx, key)
}

// Owners implements validators.Lookup.
func (l *builtLookup) Owners(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) ([]types.NamespacedName, validators.Presence, error) {
	owners, _, _ := l.built.Owners(ctx, gk, key)
	return owners, validators.Unknown, errNotApplied
}
