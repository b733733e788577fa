package audit

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/delivery"
)

func root(name string, waiting int) *delivery.Root {
	r := &delivery.Root{
		Object: delivery.Ref{Kind: "Secret", Namespace: "apps", Name: name}, State: delivery.Missing, Cause: delivery.CauseNotFound,
		Message: "the message of a status", Fix: "Create it.", Owner: &delivery.Ref{Kind: "HelmRelease", Namespace: "apps", Name: "web"},
	}
	for i := range waiting {
		r.Blocked = append(r.Blocked, delivery.Ref{Kind: "HelmRelease", Namespace: "apps", Name: fmt.Sprint("web-", i)})
	}
	return r
}

// lines returns the results of all reports.
func lines(t *testing.T, r *Results) []string {
	t.Helper()
	var out []string
	for shard := range shards {
		content, err := r.report(shard)
		if err != nil {
			t.Fatal(err)
		}
		results, _ := content["results"].([]any)
		for _, one := range results {
			m := one.(map[string]any)
			out = append(out, fmt.Sprintf("%s %s: %s", m["result"], m["rule"], m["message"]))
		}
	}
	return out
}

func TestResults_Roots(t *testing.T) {
	r := newResults()
	if added := r.setRoots(&delivery.Report{Roots: []*delivery.Root{root("token", 1)}}); len(added) > 0 || len(lines(t, r)) > 0 {
		t.Errorf("roots are reported by a replica that does not audit: %v", added)
	}
	r.ExpectRoots()
	r.began()
	r.completed()
	if due := r.due(); len(due) > 0 {
		t.Errorf("reports %v are written before the roots are known", due)
	}
	unknown := root("unknown", 3)
	unknown.State = delivery.Unknown
	added := r.setRoots(&delivery.Report{Roots: []*delivery.Root{root("token", 1), unknown}})
	if len(added) != 1 || len(r.due()) != shards {
		t.Errorf("new roots %v; all reports have to be compared with those of an earlier leader", added)
	}
	want := []string{"fail delivery-root: Secret apps/token is the root of what is not ready (Missing, NotFound); 1 object waits for it: the message of a status"}
	if diff := cmp.Diff(want, lines(t, r)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if added := r.setRoots(&delivery.Report{Roots: []*delivery.Root{root("token", 1)}}); len(added) > 0 || len(r.due()) > 0 {
		t.Errorf("the same root again: new %v", added)
	}
	r.setRoots(&delivery.Report{Roots: []*delivery.Root{root("token", 2)}})
	if due := r.due(); len(due) != 1 {
		t.Errorf("one more object waits: reports %v are due", due)
	}
	r.setRoots(&delivery.Report{})
	if due := r.due(); len(due) != 1 || len(lines(t, r)) > 0 {
		t.Errorf("the root is gone: reports %v are due, with %v", due, lines(t, r))
	}
}

func TestEventMessage(t *testing.T) {
	long := root(strings.Repeat("é", 600), 12)
	for _, r := range []*delivery.Root{root("token", 0), long} {
		message := eventMessage(r)
		if len(message) > maxEventMessage || strings.Contains(message, r.Message) || !strings.HasPrefix(message, "Secret apps/") {
			t.Errorf("%d bytes: %s", len(message), message)
		}
		if name := eventName(strings.Repeat("a", 253), r.Object); len(name) > 253 {
			t.Errorf("the name has %d bytes", len(name))
		}
	}
	if a, b := eventName("web", root("a", 0).Object), eventName("web", root("b", 0).Object); a == b {
		t.Errorf("two roots have the Event %s", a)
	}
}

func TestSummary_Status(t *testing.T) {
	r := newResults()
	if s := r.Summary().status(); s != nil {
		t.Errorf("the summary before the first complete audit is %+v", s)
	}
	r.began()
	r.completed()
	s := r.Summary()
	for i := range 60 {
		s.Rules[fmt.Sprintf("rule-%02d", i)] = Count{Deny: i, Warn: 1}
		s.Namespaces[fmt.Sprintf("ns-%02d", i)] = Count{Warn: 1}
	}
	status := s.status()
	if len(status.Rules) != maxNames || status.OmittedRules != 10 || status.Rules[0].Name != "rule-59" || status.Findings.Deny != 59*30 {
		t.Errorf("rules %d and %d, the first %+v, findings %+v", len(status.Rules), status.OmittedRules, status.Rules[0], status.Findings)
	}
	if len(status.Namespaces) != maxNames || status.OmittedNamespaces != 10 || status.Namespaces[0].Name != "ns-00" {
		t.Errorf("namespaces %d and %d, the first %+v", len(status.Namespaces), status.OmittedNamespaces, status.Namespaces[0])
	}
}
