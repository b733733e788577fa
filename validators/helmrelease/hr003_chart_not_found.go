package helmrelease

import (
	"context"
	"errors"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ChartNotFound is the rule helm-chart-not-found.
//
// It reports only what is certainly missing: the source object, the chart in a repository that was read, a version of
// it, or one of the values files that replace the chart's values. A repository that cannot be reached is recorded as Unknown. The default is a warning, because one apply may
// bring both a release and its source.
var ChartNotFound = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR003",
		Name:     "helm-chart-not-found",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Chart does not exist",
			Why: "source-controller cannot create the HelmChart if the source, the chart or a matching version " +
				"does not exist: the HelmRelease waits for it forever. A source without a namespace is looked up " +
				"in the release's own.",
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
		return nil // the CRD rejects that
	}
	_, presence, err := p.Lookup.Chart(ctx, ref)
	switch presence {
	case validators.Present:
		return nil
	case validators.Unknown:
		if file, ok := errors.AsType[*validators.MissingValuesFile](err); ok {
			reportValuesFile(p, ref, file.Name)
			return nil
		}
		p.Unknown("the chart is unavailable: %v", err)
		return nil
	case validators.Absent:
	}
	gk := schema.GroupKind{Group: ref.Source.Group, Kind: ref.Source.Kind}
	at := validators.NewPath("spec", "chart", "spec")
	source := flux.Reference{
		At:  at.Child("sourceRef"),
		To:  gk,
		Key: types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name},
	}
	if ref.Chart == "" {
		source.At = validators.NewPath("spec", "chartRef")
	}
	_, presence, err = p.Lookup.Get(ctx, gk, source.Key)
	switch presence {
	case validators.Unknown:
		p.Unknown("cannot determine whether the source of the chart exists: %v", err)
	case validators.Absent:
		source.ReportMissing(ctx, p)
	case validators.Present:
		where := at.Child("chart")
		if ref.Version != "" {
			where = at.Child("version")
		}
		p.Report(where, where.Lookup(p.Object.Object), "%s does not exist", describe(ref))
	}
	return nil
}

// reportValuesFile reports a values file that the chart lacks (source-controller: ValuesFilesError).
func reportValuesFile(p *validators.Pass, ref validators.ChartRef, name string) {
	at := validators.NewPath("spec", "chart", "spec", "valuesFiles")
	if i := slices.Index(ref.ValuesFiles, name); i >= 0 && at.Lookup(p.Object.Object) != nil {
		at = at.Index(i)
	} else {
		at = validators.NewPath("spec", "chartRef") // those of the HelmChart
	}
	f := p.Report(at, name, "%s has no values file %s", describe(ref), name)
	f.Fix = "Correct the path, which begins at the root of the chart, or of the repository for a chart in Git; or set ignoreMissingValuesFiles: true."
}
