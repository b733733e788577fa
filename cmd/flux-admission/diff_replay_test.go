package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/internal/treediff"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// diff compares the trees of two tags.
func (r *replay) diff(t *testing.T, base, head string) *report.Diff {
	t.Helper()
	var trees []*check.Tree
	for _, tag := range []string{base, head} {
		tree, err := check.Load(t.Context(), r.input(r.tree(t, tag)))
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		trees = append(trees, tree)
	}
	d, err := treediff.Compare(t.Context(), trees[0], trees[1], treediff.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestReplay_DiffPredictsMistakes: for each labeled mistake, the diff from the repair to the tree with the mistake reports
// it, and its denial if the webhook denies it by default.
func TestReplay_DiffPredictsMistakes(t *testing.T) {
	r := newReplay(t)
	denied := map[string]bool{}
	for _, rule := range allvalidators.Rules() {
		denied[rule.Name] = rule.DefaultAt(validators.StageAdmission) == v1alpha1.ActionDeny
	}
	compared := 0
	for _, c := range r.cases(t, "cases.jsonl") {
		if c.FixWasRight != true {
			continue // the tree after the repair has a mistake, too
		}
		compared++
		t.Run(c.ID+" "+c.Rule, func(t *testing.T) {
			d := r.diff(t, c.After, c.Before)
			if !slices.ContainsFunc(slices.Concat(d.Findings, d.Admission), pointed(c.matches)) {
				t.Errorf("%s is not in the diff from %s to %s", c.Rule, c.After, c.Before)
			}
			if denied[c.Rule] && !slices.ContainsFunc(d.Admission, func(f report.Finding) bool { return c.matches(&f) && f.Action == v1alpha1.ActionDeny }) {
				t.Errorf("the denial by %s is not in the diff from %s to %s: %v", c.Rule, c.After, c.Before, d.Admission)
			}
		})
	}
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

// TestReplay_DiffPredictsLosses: commits that deleted, moved or blocked what was running, by what the diff reports before
// them.
func TestReplay_DiffPredictsLosses(t *testing.T) {
	r := newReplay(t)
	for _, tc := range []struct {
		base, head string
		kind       report.EffectKind
		severity   validators.Severity
		want       string
	}{
		{"t-3357c50", "t-4c53716", report.EffectDelete, validators.SeverityError, "ObjectBucketClaim storage/velero-bucket is deleted"},
		{"t-89862f9", "t-d27a1fb", report.EffectDelete, validators.SeverityWarning, "HelmRelease tailscale/tailscale-operator is deleted: helm-controller uninstalls the release"},
		{"t-f247c2d", "t-eb6ab51", report.EffectMove, validators.SeverityError, "ObjectBucketClaim monitoring/loki-bucket moves from the Kustomization flux-system/cluster-apps to monitoring/loki-s3-bucket"},
		{"t-a8a58c1", "t-b2383ef", report.EffectDelete, validators.SeverityWarning, "Kustomization data-platform/nessie is deleted with the 5 objects that it applies"},
		{"t-a8a58c1", "t-b2383ef", report.EffectMove, validators.SeverityError, "Cluster data-platform/nessie-postgres moves from the Kustomization data-platform/nessie to flux-system/nessie"},
		{"t-b2383ef", "t-b0ed7fc", report.EffectBlocked, validators.SeverityError, "Flux cannot build the Kustomization flux-system/cluster-apps any more"},
		{"t-bcd4aa3", "t-31d9d81", report.EffectImmutable, validators.SeverityError, "provisioner of StorageClass ceph-bucket is immutable"},
	} {
		t.Run(tc.base+" "+tc.head+" "+string(tc.kind), func(t *testing.T) {
			d := r.diff(t, tc.base, tc.head)
			if !slices.ContainsFunc(d.Effects, func(e report.Effect) bool {
				return e.Kind == tc.kind && e.Severity == tc.severity && strings.HasPrefix(e.Message, tc.want)
			}) {
				t.Errorf("no %s %q in %+v", tc.severity, tc.want, d.Effects)
			}
		})
	}
}
