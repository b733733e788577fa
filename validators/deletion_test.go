package validators_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// audited returns a rule that only the audit evaluates.
func audited(id, name string, deletion bool, check func(context.Context, *validators.Pass) error) *validators.Rule {
	r := rule(id, name, check)
	r.Stages, r.Deletion, r.Defaults = validators.StageAudit, deletion, validators.Defaults{Audit: v1alpha1.ActionWarn}
	return r
}

func TestSuite_Deletion(t *testing.T) {
	reports := func(_ context.Context, p *validators.Pass) error {
		p.Report(size, nil, "found")
		return nil
	}
	suite, err := validators.NewSuite(rule("XX001", "any", reports), audited("XX002", "deleted", true, reports))
	if err != nil {
		t.Fatal(err)
	}
	stored, deleted := object("big"), object("big")
	deleted.Object["metadata"] = map[string]any{"deletionTimestamp": "2026-11-26T12:00:00Z"}
	for name, tc := range map[string]struct {
		request validators.Request
		want    []string
	}{
		"the audit evaluates other rules for a stored object":           {validators.Request{Object: stored, Stage: validators.StageAudit}, []string{"XX001"}},
		"the audit evaluates rules on deletion for one that is deleted": {validators.Request{Object: deleted, Stage: validators.StageAudit}, []string{"XX002"}},
		"admission evaluates the others":                                {validators.Request{Object: deleted, Stage: validators.StageAdmission}, []string{"XX001"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range suite.Evaluate(t.Context(), tc.request, nil).Findings {
				got = append(got, f.Rule.ID)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
		})
	}
	broken := audited("XX003", "broken", true, reports)
	broken.Stages, broken.Defaults = validators.StageAll, validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn}
	if _, err := validators.NewSuite(broken); err == nil {
		t.Error("a rule on deletion is accepted at admission")
	}
}

func TestPass_Elapsed(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	state := func(id, name string, since time.Time) *validators.Rule {
		return audited(id, name, false, func(_ context.Context, p *validators.Pass) error {
			if p.Elapsed(since, time.Hour) {
				p.Report(size, nil, "lasts")
			}
			return nil
		})
	}
	for name, tc := range map[string]struct {
		now    time.Time
		since  []time.Time
		lasts  int
		expect time.Time
	}{
		"a state that has lasted is reported":                {now, []time.Time{now.Add(-time.Hour)}, 1, time.Time{}},
		"another is evaluated again when it has":             {now, []time.Time{now.Add(-50 * time.Minute)}, 0, now.Add(10 * time.Minute)},
		"of several, the first counts":                       {now, []time.Time{now, now.Add(-20 * time.Minute), now.Add(-2 * time.Hour)}, 1, now.Add(40 * time.Minute)},
		"a time that is not known is compared with nothing":  {now, []time.Time{{}}, 0, time.Time{}},
		"without a clock, nothing has lasted and never will": {time.Time{}, []time.Time{now.Add(-time.Hour)}, 0, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			var rules []*validators.Rule
			for i, since := range tc.since {
				rules = append(rules, state([]string{"XX001", "XX002", "XX003"}[i], []string{"a", "b", "c"}[i], since))
			}
			suite, err := validators.NewSuite(rules...)
			if err != nil {
				t.Fatal(err)
			}
			r := suite.Evaluate(t.Context(), validators.Request{Object: object("big"), Stage: validators.StageAudit, Now: tc.now}, nil)
			if len(r.Findings) != tc.lasts || !r.Next.Equal(tc.expect) {
				t.Errorf("%d findings, again at %s; want %d, %s", len(r.Findings), r.Next, tc.lasts, tc.expect)
			}
		})
	}
}
