package health

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// SourceFailing is the rule source-failing.
//
// source-controller keeps the last artifact while it cannot fetch a newer one, and reports ArtifactInStorage=True: what is applied
// is ready and silently old. It sets Ready=False at the first failed attempt, and lastTransitionTime to the last time when the
// message changed, so that an error with a changing text is reported later than it could be, and never too early. While a new
// generation is fetched, the condition is that of the older one.
var SourceFailing = &validators.Rule{
	Meta: validators.Meta{
		ID:   "HE001",
		Name: "source-failing",
		Scope: validators.Scope{Kinds: []schema.GroupKind{
			flux.GitRepository, flux.OCIRepository, flux.Bucket, flux.HelmRepository, flux.HelmChart,
		}},
		Stages:   validators.StageAudit,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Source cannot be fetched",
			Why: "Flux keeps the last artifact of a source that it cannot fetch: what is applied from it stays ready, and no " +
				"change in Git or in the repository arrives in the cluster.",
			Fix:   "Repair what the message names: the URL, the credentials, the reference, or the server.",
			Since: "v0.1.0",
		},
		Params: after(30 * time.Minute),
	},
	Check: checkSourceFailing,
}

func checkSourceFailing(_ context.Context, p *validators.Pass) error {
	o := p.Object
	list := condition.Of(o)
	ready := condition.Find(list, "Ready")
	if !ready.Is("False") || outdated(ready, o) || isTrue(o, "spec", "suspend") {
		return nil
	}
	if o.GetKind() == flux.HelmRepository.Kind && text(o, "spec", "type") == "oci" {
		return nil // it is not fetched: the condition is from before it had the type
	}
	since := ready.Since
	for _, c := range list {
		// Ready changes with its message, and what it summarizes may be older.
		if (c.Type == "FetchFailed" || c.Type == "StorageOperationFailed") && c.Status == "True" && c.ObservedGeneration == ready.ObservedGeneration &&
			!c.Since.IsZero() && c.Since.Before(since) {
			since = c.Since
		}
	}
	if !p.Elapsed(since, p.Params.(*AfterParams).after) {
		return nil
	}
	f := p.Report(pathOf(ready).Child("status"), nil, "cannot be fetched since %s: %s", stamp(since), describe(ready))
	if revision := text(o, "status", "artifact", "revision"); revision != "" {
		f.Message += "; the artifact of revision " + revision + " remains in use"
	}
	f.Key = "failing"
	return nil
}
