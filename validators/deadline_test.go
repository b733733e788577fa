package validators_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
)

// reading makes a rule one that reads other objects.
func reading(r *validators.Rule) *validators.Rule {
	r.Reads = []schema.GroupKind{{Kind: "Thing"}}
	return r
}

// TestSuite_DeadlineKeepsFindings has a rule that never ends, before and after rules that find something.
func TestSuite_DeadlineKeepsFindings(t *testing.T) {
	report := func(_ context.Context, p *validators.Pass) error {
		p.Report(size, nil, "it is wrong")
		return nil
	}
	release := make(chan struct{})
	defer close(release)
	suite, err := validators.NewSuite(
		reading(rule("XX001", "found", report)),
		reading(rule("XX002", "stuck", func(_ context.Context, p *validators.Pass) error {
			p.Report(size, nil, "it is half known")
			<-release
			return nil
		})),
		reading(rule("XX003", "never-reached", report)),
		rule("XX004", "object-only", report),
	)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	res := suite.Evaluate(ctx, validators.Request{Operation: validators.Create, Object: object("s")}, nil)
	var found []string
	for _, f := range res.Findings {
		found = append(found, f.Rule.Name)
	}
	if len(found) != 2 || found[0] != "found" || found[1] != "object-only" {
		t.Errorf("findings of %v; want those of the rules that ended", found)
	}
	if len(res.Skipped) != 2 || res.Skipped[0].Rule.Name != "stuck" || res.Skipped[1].Rule.Name != "never-reached" {
		t.Fatalf("skipped %v; want the rules that did not end", res.Skipped)
	}
	for _, s := range res.Skipped {
		if !s.Unknown || !errors.Is(s.Cause, validators.ErrDeadline) {
			t.Errorf("skipped %+v; want an unknown with the cause ErrDeadline", s)
		}
	}
}

// TestSuite_RulesShareTime has a rule that uses all the time that it has.
func TestSuite_RulesShareTime(t *testing.T) {
	suite, err := validators.NewSuite(
		reading(rule("XX001", "slow", func(ctx context.Context, p *validators.Pass) error {
			<-ctx.Done()
			p.Unknown("too slow")
			return nil
		})),
		reading(rule("XX002", "fast", func(_ context.Context, p *validators.Pass) error {
			p.Report(size, nil, "it is wrong")
			return nil
		})),
	)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	res := suite.Evaluate(ctx, validators.Request{Operation: validators.Create, Object: object("s")}, nil)
	if len(res.Findings) != 1 || len(res.Skipped) != 1 || res.Skipped[0].Reason != "too slow" {
		t.Errorf("findings %v, skipped %v; want the finding of the rule after the slow one", res.Findings, res.Skipped)
	}
}

// TestSuite_UnknownBeforeIsNoDenial has a stored object that could not be evaluated before the deadline.
func TestSuite_UnknownBeforeIsNoDenial(t *testing.T) {
	suite, err := validators.NewSuite(reading(rule("XX001", "slow", func(ctx context.Context, p *validators.Pass) error {
		if p.Object == p.Old {
			<-ctx.Done()
			return ctx.Err()
		}
		p.Report(size, nil, "it is wrong")
		return nil
	})))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	res := suite.Evaluate(ctx, validators.Request{Operation: validators.Update, Object: object("s"), Old: object("s")}, nil)
	if len(res.Findings) != 0 || len(res.Skipped) != 1 || !errors.Is(res.Skipped[0].Cause, validators.ErrDeadline) {
		t.Errorf("findings %v, skipped %v; want one unknown rule", res.Findings, res.Skipped)
	}
}

// TestSuite_Incomplete has an object with a field that is left out.
func TestSuite_Incomplete(t *testing.T) {
	report := func(_ context.Context, p *validators.Pass) error {
		p.Report(size, nil, "it is wrong")
		p.Report(validators.NewPath("spec", "big", "key"), nil, "it is missing")
		return nil
	}
	suite, err := validators.NewSuite(reading(rule("XX001", "reads", report)), rule("XX002", "object-only", report))
	if err != nil {
		t.Fatal(err)
	}
	incomplete := errors.New("too complex")
	res := suite.Evaluate(t.Context(), validators.Request{
		Operation: validators.Create, Object: object("s"), Incomplete: incomplete, Unresolved: []validators.Path{validators.NewPath("spec", "big")},
	}, nil)
	if len(res.Findings) != 1 || res.Findings[0].Rule.Name != "object-only" || res.Findings[0].Path.String() != "spec.size" {
		t.Errorf("findings %v; want the one of the rule that reads the object only", res.Findings)
	}
	if len(res.Errors) != 1 || !errors.Is(res.Errors[0].Err, incomplete) {
		t.Errorf("errors %v; want why the other rule was not evaluated", res.Errors)
	}
}
