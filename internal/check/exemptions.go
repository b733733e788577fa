package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
)

// expiresSoon is how long before its expiry an exemption is reported.
const expiresSoon = 14 * 24 * time.Hour

// usedExemptions are the exemptions of policies that apply to something, by their index. It is safe for concurrent use.
type usedExemptions struct {
	mu   sync.Mutex
	used map[*clusterPolicy]map[int]bool
}

func newUsedExemptions() *usedExemptions {
	return &usedExemptions{used: map[*clusterPolicy]map[int]bool{}}
}

func (u *usedExemptions) add(p *clusterPolicy, indexes []int) {
	if len(indexes) == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.used[p] == nil {
		u.used[p] = map[int]bool{}
	}
	for _, i := range indexes {
		u.used[p][i] = true
	}
}

func (u *usedExemptions) has(p *clusterPolicy, index int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.used[p][index]
}

// addExemptions reports the exemptions of the policies that have expired or soon will, and those that apply to nothing.
func (e *evaluation) addExemptions(ctx context.Context) {
	now := time.Now()
	var problems []*validators.Problem
	add := func(p *clusterPolicy, i int, kind validators.ProblemKind, format string, args ...any) {
		problems = append(problems, &validators.Problem{Kind: kind, Diagnostic: validators.Diagnostic{
			Position: p.position(validators.NewPath("spec", "exemptions").Index(i)), Message: fmt.Sprintf(format, args...),
		}})
	}
	for _, p := range e.tree.policiesOf(e.tree.Clusters()) {
		for i, x := range p.Exemptions() {
			rules := namesOf(x)
			switch at := x.Expires.UTC().Format(time.RFC3339); {
			case x.Expires.IsZero() || x.Expires.After(now.Add(expiresSoon)):
			case x.Expires.After(now):
				add(p, i, validators.ProblemExemptionExpired, "the exemption from %s expires at %s (%s)", rules, at, x.Reason)
			default:
				add(p, i, validators.ProblemExemptionExpired, "the exemption from %s expired at %s, so it does not apply (%s)", rules, at, x.Reason)
				continue
			}
			if e.sawAll(p, x) && !e.exemptions.has(p, i) {
				add(p, i, validators.ProblemExemptionUnused, "the exemption from %s applies to nothing in this tree (%s)", rules, x.Reason)
			}
		}
	}
	e.addProblems(ctx, problems)
}

// namesOf returns the IDs of the rules of an exemption for people.
func namesOf(x policy.Exemption) string {
	if len(x.Rules) == len(allRules()) {
		return "all rules"
	}
	var ids []string
	for _, m := range x.Rules {
		ids = append(ids, m.ID)
	}
	return strings.Join(ids, ", ")
}

// sawAll reports whether all that an exemption may apply to in the tree was evaluated with its rules: with a part of them, nothing is known of it.
func (e *evaluation) sawAll(p *clusterPolicy, x policy.Exemption) bool {
	in := e.tree.input
	if e.options.only != nil || in.Cluster != "" || !e.tree.isBuilt() || len(e.report.Clusters) == 0 {
		return false
	}
	active, _ := p.Rules()
	return !slices.ContainsFunc(x.Rules, func(m *validators.Meta) bool {
		return !slices.ContainsFunc(active, func(r v1alpha1.ActiveRule) bool { return r.Name == m.Name }) &&
			m.Stages&validators.StageOffline != 0 && len(in.Only)+len(in.Skip) > 0
	})
}
