// Package source holds the rules on references to Flux sources.
package source

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// Missing is the rule source-missing.
//
// A reference without a namespace names an object in the referring object's own namespace. A parent's `namespace:`
// transformer that moves the object changes the target of its references, while the source stays where it is.
//
// At admission a HelmRelease's source is evaluated together with its chart and version, by the rule on charts. In a
// Git tree a release's source is a reference like any other, and this rule's finding replaces that of the other rule.
var Missing = &validators.Rule{
	Meta: validators.Meta{
		ID:   "SO001",
		Name: "source-missing",
		Scope: validators.Scope{Kinds: []schema.GroupKind{
			flux.Kustomization,
			flux.HelmRelease,
			flux.HelmChart,
			flux.GitRepository,
			flux.ImagePolicy,
			flux.ImageUpdateAutomation,
			flux.Receiver,
			flux.Alert,
		}},
		Stages:     validators.StageAll,
		KindStages: map[schema.GroupKind]validators.Stage{flux.HelmRelease: validators.StageOffline | validators.StageAudit},
		Severity:   validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionWarn,
			Offline:   v1alpha1.ActionDeny,
			Reason: "One apply may bring both objects, and its dry-run comes before either exists. " +
				"In a Git tree all objects are there at once.",
		},
		Doc: validators.Doc{
			Title: "Referenced Flux source does not exist",
			Why: "An object waits forever for a source that does not exist: a Kustomization is never built, a " +
				"HelmRelease never installed, a Receiver or an Alert never acts. Without a namespace, a reference " +
				"names an object in the same namespace.",
			Fix:   "Correct the name, or set the namespace of the reference to that of the source.",
			Since: "v0.1.0",
		},
		Reads:      referenced(),
		Supersedes: []string{"helm-chart-not-found"},
	},
	Check: check,
}

// byKind returns the kinds by their name: Flux resolves references by it, without the group.
func byKind() map[string]schema.GroupKind {
	out := map[string]schema.GroupKind{}
	for _, gk := range referenced() {
		out[gk.Kind] = gk
	}
	return out
}

// referenced returns the kinds of the objects that references name.
func referenced() []schema.GroupKind {
	return []schema.GroupKind{
		flux.GitRepository,
		flux.OCIRepository,
		flux.Bucket,
		flux.ExternalArtifact,
		flux.HelmRepository,
		flux.HelmChart,
		flux.Kustomization,
		flux.HelmRelease,
		flux.ImageRepository,
		flux.ImagePolicy,
		flux.ImageUpdateAutomation,
		flux.Provider,
	}
}

func check(ctx context.Context, p *validators.Pass) error {
	for _, r := range references(p) {
		r.Check(ctx, p)
	}
	return nil
}

// references returns the references in the fields of the object's kind.
func references(p *validators.Pass) []flux.Reference {
	c := &collector{pass: p}
	spec := validators.NewPath("spec")
	switch p.Object.GroupVersionKind().GroupKind() {
	case flux.Kustomization:
		c.add(spec.Child("sourceRef"), schema.GroupKind{}, false)
	case flux.HelmRelease:
		c.add(spec.Child("chart", "spec", "sourceRef"), schema.GroupKind{}, false)
		c.add(spec.Child("chartRef"), schema.GroupKind{}, false)
	case flux.HelmChart:
		c.add(spec.Child("sourceRef"), schema.GroupKind{}, true)
	case flux.GitRepository:
		c.each(spec.Child("include"), func(at validators.Path) { c.add(at.Child("repository"), flux.GitRepository, true) })
	case flux.ImagePolicy:
		c.add(spec.Child("imageRepositoryRef"), flux.ImageRepository, false)
	case flux.ImageUpdateAutomation:
		c.add(spec.Child("sourceRef"), flux.GitRepository, false)
	case flux.Receiver:
		c.each(spec.Child("resources"), func(at validators.Path) { c.add(at, schema.GroupKind{}, false) })
	case flux.Alert:
		c.add(spec.Child("providerRef"), flux.Provider, true)
		c.optional = true // of several sources one may be missing: the others send events
		c.each(spec.Child("eventSources"), func(at validators.Path) { c.add(at, schema.GroupKind{}, false) })
	}
	return c.references
}

type collector struct {
	pass       *validators.Pass
	references []flux.Reference
	// optional is that of the references that are added.
	optional bool
}

// each calls do for each item of the list at the path.
func (c *collector) each(at validators.Path, do func(validators.Path)) {
	list, _ := at.Lookup(c.pass.Object.Object).([]any)
	for i := range list {
		do(at.Index(i))
	}
}

// add adds the reference at the path, if there is one. Kind is the default for a reference without a kind; kinds that
// are not Flux's are skipped.
func (c *collector) add(at validators.Path, kind schema.GroupKind, local bool) {
	ref, _ := at.Lookup(c.pass.Object.Object).(map[string]any)
	text := func(field string) string { s, _ := ref[field].(string); return s }
	if given := text("kind"); given != "" {
		kind = byKind()[given]
		if gv, err := schema.ParseGroupVersion(text("apiVersion")); err == nil && !gv.Empty() && gv.Group != kind.Group {
			return
		}
	}
	r := flux.Reference{At: at, To: kind, Local: local, Optional: c.optional}
	r.Key.Name, r.Key.Namespace = text("name"), c.pass.Object.GetNamespace()
	if namespace := text("namespace"); namespace != "" && !local {
		r.Key.Namespace = namespace
	}
	// The CRDs reject a reference without a name. A star or labels select any number of objects, none included.
	if kind.Kind == "" || r.Key.Name == "" || r.Key.Name == "*" || ref["matchLabels"] != nil {
		return
	}
	if r.Key.Namespace == "" {
		c.pass.Unknown("cannot determine the namespace of %s %s: the %s has none", kind.Kind, r.Key.Name, c.pass.Object.GetKind())
		return
	}
	c.references = append(c.references, r)
}
