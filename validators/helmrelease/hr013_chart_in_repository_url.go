package helmrelease

import (
	"context"
	"net/url"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ChartInRepositoryURL is the rule helm-chart-in-repository-url.
//
// source-controller appends the chart's name to the URL of an OCI HelmRepository. A URL that ends with the name is
// usually that of the chart itself, as helm pull and an OCIRepository take it. Some projects do publish
// owner/name/name, so the finding is uncertain, and there is none if the chart can be read. An address of registry and
// one name is that of an organization.
var ChartInRepositoryURL = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR013",
		Name:     "helm-chart-in-repository-url",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageOffline | validators.StageAudit,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionWarn, Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "URL of the HelmRepository contains the chart",
			Why: "Flux appends the chart's name to the URL of an OCI HelmRepository. If the URL ends with the chart " +
				"already, Flux looks for a chart below the chart, and the release is never installed.",
			Fix: "Remove the chart's name from the end of the HelmRepository's URL, or reference an OCIRepository with " +
				"the whole URL by spec.chartRef.",
			Since: "v0.1.0",
		},
		Reads: ValuesSchema.Reads,
	},
	Check: checkChartInRepositoryURL,
}

func checkChartInRepositoryURL(ctx context.Context, p *validators.Pass) error {
	ref, ok := ChartRef(p.Object)
	if !ok || ref.Source.Kind != flux.HelmRepository.Kind || ref.Chart == "" || unresolved.String(ref.Chart) {
		return nil
	}
	key := types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name}
	if p.Confined && key.Namespace != p.Object.GetNamespace() {
		return nil // who reads the finding need not have permission to see the URL
	}
	repository, presence, _ := p.Lookup.Get(ctx, flux.HelmRepository, key)
	if presence != validators.Present {
		return nil // another rule reports a source that does not exist
	}
	spec, _ := repository.Object["spec"].(map[string]any)
	address := text(spec, "url")
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "oci" || unresolved.String(address) {
		return nil
	}
	repositoryPath := strings.Trim(u.Path, "/")
	name := path.Base(ref.Chart)
	if !strings.Contains(repositoryPath, "/") || path.Base(repositoryPath) != name {
		return nil
	}
	if _, presence, _ := p.Lookup.Chart(ctx, ref); presence == validators.Present {
		return nil
	}
	f := p.Report(
		validators.NewPath("spec", "chart", "spec", "chart"), ref.Chart,
		"the URL %s of HelmRepository %s ends with %s already; Flux reads the chart %s/%s",
		address, key, name, strings.TrimSuffix(address, "/"), ref.Chart,
	)
	f.Uncertain = true
	return nil
}
