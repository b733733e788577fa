package conformance_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/audit"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// TestAudit evaluates the object of each case as one that is stored already. The findings must be those with which the webhook
// server refuses to create it.
func TestAudit(t *testing.T) {
	compared := 0
	for _, rule := range allvalidators.Rules() {
		if !rule.Stages.Has(validators.StageAdmission | validators.StageAudit) {
			continue
		}
		for _, c := range cases(t, rule) {
			gk := c.Request.Object.GroupVersionKind().GroupKind()
			if !slices.Contains(rule.KindsAt(validators.StageAdmission), gk) || !slices.Contains(rule.KindsAt(validators.StageAudit), gk) {
				continue
			}
			t.Run(rule.Name+"/"+c.Name, func(t *testing.T) {
				look := c.Lookup(t, resolver)
				for _, o := range c.Objects {
					stripped, err := lookup.Strip(o.DeepCopy())
					if err != nil {
						t.Fatal(err)
					}
					look.Add(stripped.(*unstructured.Unstructured))
				}
				p := compile(t, c, rule)
				created := c.Request
				created.Operation, created.Old = validators.Create, nil
				var want, got []string
				if response := review(t, p, look, created); response.Result != nil && response.Result.Details != nil {
					for _, cause := range response.Result.Details.Causes {
						message, _, _ := strings.Cut(cause.Message, " ("+rule.ID)
						want = append(want, cause.Field+": "+message)
					}
				}
				for _, f := range audit.Evaluate(t.Context(), p, c.Request.Object, look, true, time.Now()).Findings() {
					if f.Action == v1alpha1.ActionDeny || slices.Contains(f.Rule.Supersedes, rule.Name) {
						got = append(got, f.Path.String()+": "+f.Message)
					}
				}
				compared += len(want)
				slices.Sort(want)
				slices.Sort(got)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("findings (-admission +audit):\n%s", diff)
				}
			})
		}
	}
	if compared < 100 {
		t.Errorf("%d findings were compared, want at least 100", compared)
	}
}

// TestAudit_States evaluates the object of each case of the rules that only the audit evaluates, as the command audit does. The findings
// must be those of the suite, although it does not keep all of the other objects.
func TestAudit_States(t *testing.T) {
	compared := 0
	for _, rule := range allvalidators.Rules() {
		if rule.Stages != validators.StageAudit {
			continue
		}
		for _, c := range cases(t, rule) {
			t.Run(rule.Name+"/"+c.Name, func(t *testing.T) {
				look := c.Lookup(t, resolver)
				var want, got []string
				for _, f := range ruletest.Own(c.Suite(t, rule).Evaluate(t.Context(), c.Request, look), rule).Findings {
					want = append(want, f.Path.String()+": "+f.Message)
				}
				for _, o := range c.Objects {
					stripped, err := lookup.Strip(o.DeepCopy())
					if err != nil {
						t.Fatal(err)
					}
					look.Add(stripped.(*unstructured.Unstructured))
				}
				for _, f := range audit.Evaluate(t.Context(), compile(t, c, rule), c.Request.Object, look, false, c.Request.Now).Findings() {
					got = append(got, f.Path.String()+": "+f.Message)
				}
				compared += len(want)
				slices.Sort(want)
				slices.Sort(got)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("findings (-suite +audit):\n%s", diff)
				}
			})
		}
	}
	if compared < 25 {
		t.Errorf("%d findings were compared, want at least 25", compared)
	}
}
