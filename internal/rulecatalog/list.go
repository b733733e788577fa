// Package rulecatalog lists and explains all rules, with what a policy does about their findings.
package rulecatalog

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// Rule is a rule with what a policy does about its findings.
type Rule struct {
	ID       string              `json:"id"`
	Name     string              `json:"name"`
	Title    string              `json:"title"`
	Severity validators.Severity `json:"severity"`
	Actions  Actions             `json:"actions"`
	// LooksAt is "kinds", or what the rule matches instead: "any" object, "files" of a Git tree, "unapplied" objects.
	LooksAt string `json:"looksAt"`
	// Kinds are Kind.group; empty unless LooksAt is "kinds".
	Kinds []string `json:"kinds"`
	Since string   `json:"since"`
}

// Actions are those of a rule in the cluster and in the check command.
type Actions struct {
	// Cluster is empty for a rule that is not evaluated at admission, unless only the audit evaluates it.
	Cluster v1alpha1.Action `json:"cluster,omitempty"`
	// Check is empty for a rule that only the audit evaluates.
	Check v1alpha1.Action `json:"check,omitempty"`
}

// String describes the actions.
func (a Actions) String() string {
	if a.Cluster == "" {
		return string(a.Check) + ", only in check"
	}
	if a.Check == "" {
		return string(a.Cluster) + ", only in the audit"
	}
	if a.Cluster == a.Check {
		return string(a.Check)
	}
	return fmt.Sprintf("%s in the cluster, %s in check", a.Cluster, a.Check)
}

// List returns all rules in the order of the documentation, with the actions of the policy in a file, or those of the
// default policy for the file "".
func List(policyFile string) ([]Rule, error) {
	forCheck, err := check.Policy(policyFile, validators.StageOffline)
	if err != nil {
		return nil, err
	}
	forCluster, err := check.Policy(policyFile, validators.StageAdmission)
	if err != nil {
		return nil, err
	}
	atCheck, atCluster := actionsOf(forCheck), actionsOf(forCluster)
	var list []Rule
	for _, r := range allvalidators.Rules() {
		looksAt, kinds := subjectsOf(&r.Meta)
		one := Rule{
			ID: r.ID, Name: r.Name, Title: r.Doc.Title, Severity: r.Severity, LooksAt: looksAt, Kinds: kinds, Since: r.Doc.Since,
		}
		if r.Stages != validators.StageAudit {
			one.Actions.Check = atCheck[r.Name]
		}
		if r.Stages.Has(validators.StageAdmission) || r.Stages == validators.StageAudit {
			one.Actions.Cluster = atCluster[r.Name]
		}
		list = append(list, one)
	}
	return list, nil
}

// actionsOf returns the action of every rule by its name.
func actionsOf(p *policy.Policy) map[string]v1alpha1.Action {
	actions := map[string]v1alpha1.Action{}
	active, inactive := p.Rules()
	for _, r := range active {
		actions[r.Name] = r.Action
	}
	for _, r := range inactive {
		actions[r.Name] = v1alpha1.ActionOff
	}
	return actions
}

func subjectsOf(m *validators.Meta) (looksAt string, kinds []string) {
	kinds = []string{}
	switch {
	case m.Scope.AnyKind:
		return "any", kinds
	case m.Scope.File:
		return "files", kinds
	case m.Scope.Unapplied:
		return "unapplied", kinds
	}
	for _, gk := range m.Scope.Kinds {
		kinds = append(kinds, gk.String())
	}
	return "kinds", kinds
}

const (
	// gap is the number of columns between those of a table.
	gap = 3
	// minTitle is the number of columns from which a cut title helps to find a rule.
	minTitle = 20
)

// WriteTable writes a table with a line for each rule. With columns, which is the width of a terminal, it has no kinds, and titles only as far as there
// is room for them; with 0, it has everything.
func WriteTable(to io.Writer, list []Rule, columns int) error {
	rows := [][]string{{"ID", "NAME", "SEVERITY", "CLUSTER", "CHECK", "TITLE", "KINDS"}}
	for _, r := range list {
		kinds := "(" + r.LooksAt + ")"
		if len(r.Kinds) > 0 {
			kinds = kindNames(r.Kinds)
		}
		cluster, inCheck := cmp.Or(r.Actions.Cluster, "-"), cmp.Or(r.Actions.Check, "-")
		rows = append(rows, []string{r.ID, r.Name, string(r.Severity), string(cluster), string(inCheck), r.Title, kinds})
	}
	if columns > 0 {
		fit(rows, columns)
	}
	w := tabwriter.NewWriter(to, 0, 0, gap, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the list of rules: %w", err)
	}
	return nil
}

// fit removes the kinds from the rows of a table, and cuts or removes their titles.
func fit(rows [][]string, columns int) {
	const title = 5
	room := columns
	for i := range title {
		widest := slices.MaxFunc(rows, func(a, b []string) int { return len(a[i]) - len(b[i]) })
		room -= len(widest[i]) + gap
	}
	for i, row := range rows {
		if room < minTitle {
			rows[i] = row[:title]
			continue
		}
		if text := []rune(row[title]); len(text) > room {
			row[title] = string(text[:room-1]) + "…"
		}
		rows[i] = row[:title+1]
	}
}

// kindNames returns the kinds without their groups, which would make lines too long.
func kindNames(kinds []string) string {
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		name, _, _ := strings.Cut(k, ".")
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

// WriteJSON writes the rules as a JSON list.
func WriteJSON(to io.Writer, list []Rule) error {
	e := json.NewEncoder(to)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(list); err != nil {
		return fmt.Errorf("writing the list of rules: %w", err)
	}
	return nil
}

// IDs returns the IDs of rules that are given by name or ID, in upper or lower case. The error suggests a rule for a
// misspelled one.
func IDs(given []string) ([]string, error) {
	var out, names []string
	ids := map[string]string{}
	for _, r := range allvalidators.Rules() {
		ids[strings.ToLower(r.ID)], ids[r.Name] = r.ID, r.ID
		names = append(names, r.Name)
	}
	for _, g := range given {
		id, ok := ids[strings.ToLower(g)]
		if !ok {
			err := fmt.Errorf("there is no rule %q; `flux-admission rules` lists them", g)
			if near := suggest.Nearest(strings.ToLower(g), names); near != "" {
				err = fmt.Errorf("there is no rule %q; did you mean %s?", g, near)
			}
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}
