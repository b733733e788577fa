package helmrelease

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ChartNotFound is the rule helm-chart-not-found.
//
// It speaks only where something is certainly missing: the source object, the chart in a repository that was read, or a version of it. What
// cannot be reached is unknown, and said as that. It warns by default, because a release and its source may come in the same apply.
var ChartNotFound = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR003",
		Name:     "helm-chart-not-found",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "HelmRelease whose chart does not exist",
			Why: "source-controller cannot make the HelmChart when the source, the chart or a version that fits does not exist: the HelmRelease waits for it " +
				"without an end. A source without a namespace is looked for in the release's own.",
			Fix:   "Correct the name, the namespace or the version, or create the source.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.HelmRepository, flux.HelmChart, flux.OCIRepository, flux.GitRepository, flux.Bucket},
	},
	Check: checkChartNotFound,
}

func checkChartNotFound(ctx context.Context, p *validators.Pass) error {
	ref, ok := ChartRef(p.Object)
	if !ok {
		return nil // the CRD refuses that
	}
	_, presence, err := p.Lookup.Chart(ctx, ref)
	switch presence {
	case validators.Present:
		return nil
	case validators.Unknown:
		p.Unknown("whether the chart exists is not known: %v", err)
		return nil
	case validators.Absent:
	}
	gk := schema.GroupKind{Group: ref.Source.Group, Kind: ref.Source.Kind}
	at := validators.NewPath("spec", "chart", "spec")
	source := flux.Reference{At: at.Child("sourceRef"), To: gk, Key: types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name}}
	if ref.Chart == "" {
		source.At = validators.NewPath("spec", "chartRef")
	}
	_, presence, err = p.Lookup.Get(ctx, gk, source.Key)
	switch presence {
	case validators.Unknown:
		p.Unknown("whether the chart's source exists is not known: %v", err)
	case validators.Absent:
		source.ReportMissing(ctx, p)
	case validators.Present:
		where := at.Child("chart")
		if ref.Version != "" {
			where = at.Child("version")
		}
		p.Report(where, where.Lookup(p.Object.Object), "%s does not exist", described(ref))
	}
	return nil
}
