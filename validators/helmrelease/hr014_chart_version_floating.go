package helmrelease

import (
	"context"

	"github.com/Masterminds/semver/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ChartVersionFloating is the rule helm-chart-version-floating.
//
// A range without an upper bound accepts every later major version: "*", which is the default, ">=1.0.0", "x". The
// version counts for charts of a HelmRepository only.
var ChartVersionFloating = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR014",
		Name:     "helm-chart-version-floating",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease, flux.HelmChart, flux.OCIRepository}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityInfo,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionAudit, Offline: v1alpha1.ActionAudit},
		Doc: validators.Doc{
			Title: "Version has no upper bound",
			Why: "Flux upgrades to every new version within the interval, major versions included, without a commit " +
				"in Git: what runs cannot be read from the tree, and reverting a commit does not revert the upgrade.",
			Fix:   "Write a version, or a range with an upper bound such as 1.x.",
			Since: "v0.1.0",
		},
	},
	Check: checkVersionFloating,
}

func checkVersionFloating(_ context.Context, p *validators.Pass) error {
	spec := validators.NewPath("spec")
	switch p.Object.GroupVersionKind().GroupKind() {
	case flux.HelmRelease:
		checkVersionOf(p, spec.Child("chart", "spec"))
	case flux.HelmChart:
		checkVersionOf(p, spec)
	case flux.OCIRepository:
		checkReference(p, spec.Child("ref"))
	}
	return nil
}

// checkVersionOf reports the version of the chart in the map at a path.
func checkVersionOf(p *validators.Pass, at validators.Path) {
	chart, _ := at.Lookup(p.Object.Object).(map[string]any)
	source, _ := chart["sourceRef"].(map[string]any)
	if text(source, "kind") != flux.HelmRepository.Kind {
		return
	}
	version, isText := chart["version"].(string)
	if chart["version"] != nil && !isText || unresolved.String(version) {
		return
	}
	switch {
	case version == "":
		p.Report(at.Child("chart"), nil, "the chart has no version; the newest one is installed")
	case unbounded(version):
		p.Report(at.Child("version"), version, "the version %q has no upper bound", version)
	}
}

// checkReference reports the reference of an OCIRepository: without one, the tag latest is read.
func checkReference(p *validators.Pass, at validators.Path) {
	ref, _ := at.Lookup(p.Object.Object).(map[string]any)
	tag, digest, semverRange := text(ref, "tag"), text(ref, "digest"), text(ref, "semver")
	if digest != "" || unresolved.String(tag) || unresolved.String(semverRange) {
		return
	}
	switch {
	case semverRange != "":
		if unbounded(semverRange) {
			p.Report(at.Child("semver"), semverRange, "the version %q has no upper bound", semverRange)
		}
	case tag == "latest":
		p.Report(at.Child("tag"), tag, "the tag latest moves")
	case tag == "":
		p.Report(validators.NewPath("spec", "url"), nil, "the OCIRepository has no spec.ref; the tag latest is read")
	}
}

// unbounded reports whether a range accepts every later version.
func unbounded(text string) bool {
	const major = 1 << 31
	constraint, err := semver.NewConstraint(text)
	return err == nil && constraint.Check(semver.New(major, 0, 0, "", ""))
}
