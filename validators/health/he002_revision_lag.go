package health

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// sourceKinds are the kinds with an artifact that a Kustomization or HelmRelease refers to.
var sourceKinds = []schema.GroupKind{flux.GitRepository, flux.OCIRepository, flux.Bucket, flux.ExternalArtifact, flux.HelmChart}

// RevisionLag is the rule revision-lag.
//
// lastAppliedRevision stays at the last revision that became healthy, and the artifact of the source has the time since when it is
// there. Where commits arrive more often than the threshold, that time is that of the newest one, and nothing is reported. A HelmRelease has no
// lastAppliedRevision: the newest release with the status deployed is what runs. While a revision is being applied, the time since the
// attempt began counts, and the timeout is added. A generation that the controller has not seen yet, as after a resume, lags behind
// nothing, nor does what never became ready. Suspended objects are those of suspended-too-long.
var RevisionLag = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HE002",
		Name:     "revision-lag",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization, flux.HelmRelease}},
		Stages:   validators.StageAudit,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Newer revision of the source is not applied",
			Why: "The source has had a newer revision for longer than the threshold, and the cluster still runs an older one: the " +
				"newer one fails, waits for a dependency, or no controller reconciles the object.",
			Fix:   "Repair what the condition Ready names, or follow it to its root with flux-admission why.",
			Since: "v0.1.0",
		},
		Reads:  sourceKinds,
		Group:  "revision-lag",
		Params: after(time.Hour),
	},
	Check: checkRevisionLag,
}

func checkRevisionLag(ctx context.Context, p *validators.Pass) error {
	o := p.Object
	if isTrue(o, "spec", "suspend") {
		return nil
	}
	lag := lagOf(ctx, p)
	if lag == nil {
		return nil
	}
	ready := condition.Find(condition.Of(o), "Ready")
	wait, since := p.Params.(*AfterParams).after, lag.since
	switch {
	case ready == nil:
	case outdated(ready, o):
		// It was resumed, or has another source, and its controller has not seen that yet.
		p.Elapsed(p.Now, wait)
		return nil
	case ready.Is("Unknown") && ready.Since.After(since):
		since = ready.Since // of this attempt
	}
	if ready.Is("Unknown") || lag.attempted && !ready.Is("False") {
		wait += durationAt(o, durationAt(o, 5*time.Minute, "spec", "interval"), "spec", "timeout")
	}
	if !p.Elapsed(since, wait) {
		return nil
	}
	f := p.Report(lag.at, nil, "%s", lag)
	if ready.Is("False") {
		f.Message += "; " + describe(ready)
	}
	f.Key = "lag"
	return nil
}

// lag is an artifact that is not applied.
type lag struct {
	source, newer, applied string
	since                  time.Time
	// at is the field with what is applied.
	at validators.Path
	// attempted means that the controller has begun to apply it.
	attempted bool
}

// lagOf returns the newer artifact of the source of an object; nil if there is none, or if the status does not show it.
func lagOf(ctx context.Context, p *validators.Pass) *lag {
	if p.Object.GetKind() == flux.HelmRelease.Kind {
		return releaseLag(ctx, p)
	}
	applied := text(p.Object, "status", "lastAppliedRevision")
	ref := flux.SourceOf(p.Object)
	if ref.Name == "" {
		return nil
	}
	// The source is looked up even if nothing is applied yet, so that its next artifact has the object evaluated again.
	l := artifactOf(ctx, p, schema.GroupKind{Group: ref.Group, Kind: ref.Kind}, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name})
	if l == nil || applied == "" || sameRevision(l.newer, applied) {
		return nil
	}
	l.applied, l.at = applied, validators.NewPath("status", "lastAppliedRevision")
	l.attempted = sameRevision(text(p.Object, "status", "lastAttemptedRevision"), l.newer)
	return l
}

// artifactOf returns the artifact of a source; nil if it has none or cannot be read.
func artifactOf(ctx context.Context, p *validators.Pass, gk schema.GroupKind, key types.NamespacedName) *lag {
	source, presence, err := p.Lookup.Get(ctx, gk, key)
	switch presence {
	case validators.Unknown:
		p.Unknown("cannot determine the revision of %s %s: %v", gk.Kind, key, err)
		return nil
	case validators.Absent:
		return nil
	case validators.Present:
	}
	l := &lag{
		source: gk.Kind + " " + key.String(), newer: text(source, "status", "artifact", "revision"),
		since: parseTime(text(source, "status", "artifact", "lastUpdateTime")),
	}
	if l.newer == "" || l.since.IsZero() {
		return nil
	}
	return l
}

// sameRevision reports whether two revisions are of the same content. Flux has written main/SHA, and writes main@sha1:SHA.
func sameRevision(a, b string) bool {
	return a == b || a != "" && digestOf(a) == digestOf(b)
}

// digestOf returns the checksum at the end of a revision; the whole revision if it has none.
func digestOf(revision string) string {
	if i := strings.LastIndexAny(revision, ":/"); i >= 0 {
		return revision[i+1:]
	}
	return revision
}

// releaseLag returns the newer chart of a HelmRelease.
func releaseLag(ctx context.Context, p *validators.Pass) *lag {
	o := p.Object
	at, deployed := deployedRelease(o)
	version, _ := deployed["chartVersion"].(string)
	gk, key := flux.HelmChart, chartKey(o)
	if ref, ok := field(o, "spec", "chartRef").(map[string]any); ok {
		kind, _ := ref["kind"].(string)
		name, _ := ref["name"].(string)
		namespace, _ := ref["namespace"].(string)
		gk, key = schema.GroupKind{Group: flux.HelmChart.Group, Kind: kind}, types.NamespacedName{Namespace: cmp.Or(namespace, o.GetNamespace()), Name: name}
	}
	if key.Name == "" {
		return nil
	}
	var l *lag
	attempted := text(o, "status", "lastAttemptedRevision")
	switch gk {
	case flux.HelmChart:
		if l = artifactOf(ctx, p, gk, key); l == nil || version == "" || sameChartVersion(l.newer, version) {
			return nil
		}
		l.attempted = sameChartVersion(l.newer, attempted)
	case flux.OCIRepository:
		// The version of the chart has a part of the digest, the history all of it.
		digest, _ := deployed["ociDigest"].(string)
		if l = artifactOf(ctx, p, gk, key); l == nil || version == "" || digest == "" || sameRevision(l.newer, digest) {
			return nil
		}
		l.attempted = sameRevision(l.newer, text(o, "status", "lastAttemptedRevisionDigest"))
	default:
		return nil
	}
	l.applied, l.at = "chart version "+version, at
	return l
}

// deployedRelease returns the newest release with the status deployed, with its field; nil if there is none.
func deployedRelease(o *unstructured.Unstructured) (validators.Path, map[string]any) {
	history, _ := field(o, "status", "history").([]any)
	for i, item := range history {
		if release, _ := item.(map[string]any); release["status"] == "deployed" {
			return validators.NewPath("status", "history").Index(i).Child("chartVersion"), release
		}
	}
	return nil, nil
}

// chartKey returns the HelmChart in status.helmChart, namespace/name, or Kind/namespace/name since Flux 2.10.
func chartKey(o *unstructured.Unstructured) types.NamespacedName {
	parts := strings.Split(text(o, "status", "helmChart"), "/")
	if n := len(parts); n == 2 || n == 3 && parts[0] == flux.HelmChart.Kind {
		return types.NamespacedName{Namespace: parts[n-2], Name: parts[n-1]}
	}
	return types.NamespacedName{}
}

// sameChartVersion reports whether a release is of the version of a HelmChart: helm-controller may append build metadata.
func sameChartVersion(chart, release string) bool {
	return chart == release || strings.HasPrefix(release, chart+"+")
}

// String describes the lag for messages.
func (l *lag) String() string {
	return fmt.Sprintf("%s has revision %s since %s, and %s is the last one that was applied", l.source, l.newer, stamp(l.since), l.applied)
}
