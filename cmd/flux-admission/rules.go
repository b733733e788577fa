package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// The formats of a list of rules.
const (
	listText = "text"
	listJSON = "json"
)

func newRules() *cobra.Command {
	var output, policyFile string
	c := &cobra.Command{
		Use:   "rules",
		Short: "List all rules, and what a policy does about what they find",
		Long: "List all rules: in the cluster column with what serve does about a finding, in the check column with what check does. Without --policy these are\n" +
			"the actions of the policy that ships; check takes the AdmissionPolicy of the tree instead where it has one. A rule with no action in the cluster\n" +
			"is asked by check only. explain RULE says more of one.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != listText && output != listJSON {
				return fmt.Errorf("--output %q is not a format: use %s or %s", output, listText, listJSON)
			}
			list, err := catalogue(policyFile)
			if err != nil {
				return err
			}
			if output == listJSON {
				return writeRulesJSON(c.OutOrStdout(), list)
			}
			return writeRulesTable(c.OutOrStdout(), list)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", listText, listText+" or "+listJSON)
	c.Flags().StringVar(&policyFile, "policy", "", "file with the AdmissionPolicy whose actions are shown (default: the one that ships)")
	return c
}

// listedRule is a rule with what a policy does about its findings.
type listedRule struct {
	ID       string              `json:"id"`
	Name     string              `json:"name"`
	Title    string              `json:"title"`
	Severity validators.Severity `json:"severity"`
	Actions  ruleActions         `json:"actions"`
	// LooksAt is "kinds", or what the rule is asked about instead: "any" object, "files" of a Git tree, "orphans" that nothing applies.
	LooksAt string `json:"looksAt"`
	// Kinds are Kind.group; empty unless LooksAt is "kinds".
	Kinds []string `json:"kinds"`
	Since string   `json:"since"`
}

// ruleActions are the two places where a rule is asked.
type ruleActions struct {
	// Cluster is empty for a rule that is asked by check only.
	Cluster v1alpha1.Action `json:"cluster,omitempty"`
	Check   v1alpha1.Action `json:"check"`
}

// String says the actions in words.
func (a ruleActions) String() string {
	if a.Cluster == "" {
		return string(a.Check) + ", in check only"
	}
	if a.Cluster == a.Check {
		return string(a.Check)
	}
	return fmt.Sprintf("%s in the cluster, %s in check", a.Cluster, a.Check)
}

// catalogue returns all rules in the order of the documentation, with the actions of the policy in the file; with those of the policy that ships when the
// file is "". The error names what is wrong with the file.
func catalogue(policyFile string) ([]listedRule, error) {
	forCheck, _, err := checkPolicy(policyFile, &kustomization.Result{})
	if err != nil {
		return nil, err
	}
	forCluster := forCheck
	if policyFile == "" {
		if forCluster, err = shippedPolicy(); err != nil {
			return nil, err
		}
	}
	atCheck, atCluster := actionsOf(forCheck), actionsOf(forCluster)
	var list []listedRule
	for _, r := range allvalidators.Rules() {
		looksAt, kinds := subjectsOf(&r.Meta)
		one := listedRule{
			ID: r.ID, Name: r.Name, Title: r.Doc.Title, Severity: r.Severity, LooksAt: looksAt, Kinds: kinds, Since: r.Doc.Since,
			Actions: ruleActions{Check: atCheck[r.Name]},
		}
		if r.AtAdmission() {
			one.Actions.Cluster = atCluster[r.Name]
		}
		list = append(list, one)
	}
	return list, nil
}

func shippedPolicy() (*policy.Policy, error) {
	suite, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		return nil, fmt.Errorf("building the suite of rules: %w", err)
	}
	set, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		return nil, fmt.Errorf("building the set of mutators: %w", err)
	}
	shipped, err := policy.Default()
	if err != nil {
		return nil, err
	}
	return policy.Compile(shipped, suite, set, nil)
}

// actionsOf returns the action of every rule by its name.
func actionsOf(p *policy.Policy) map[string]v1alpha1.Action {
	actions := map[string]v1alpha1.Action{}
	active, inactive := p.Rules()
	for _, r := range active {
		actions[r.Name] = v1alpha1.Action(r.Action)
	}
	for _, r := range inactive {
		actions[r.Name] = v1alpha1.ActionOff
	}
	return actions
}

func subjectsOf(m *validators.Meta) (looksAt string, kinds []string) {
	kinds = []string{}
	switch {
	case m.AnyKind:
		return "any", kinds
	case m.Files:
		return "files", kinds
	case m.Unapplied:
		return "orphans", kinds
	}
	for _, gk := range m.Kinds {
		kinds = append(kinds, gk.String())
	}
	return "kinds", kinds
}

// writeRulesTable writes a line per rule under a head, in columns.
func writeRulesTable(to io.Writer, list []listedRule) error {
	w := tabwriter.NewWriter(to, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tSEVERITY\tCLUSTER\tCHECK\tTITLE\tKINDS")
	for _, r := range list {
		cluster := string(r.Actions.Cluster)
		if cluster == "" {
			cluster = "-"
		}
		kinds := "(" + r.LooksAt + ")"
		if len(r.Kinds) > 0 {
			kinds = kindNames(r.Kinds)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Name, r.Severity, cluster, r.Actions.Check, r.Title, kinds)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the list of rules: %w", err)
	}
	return nil
}

// kindNames leaves the groups away, as a line has no room for them.
func kindNames(kinds []string) string {
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		name, _, _ := strings.Cut(k, ".")
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

func writeRulesJSON(to io.Writer, list []listedRule) error {
	e := json.NewEncoder(to)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(list); err != nil {
		return fmt.Errorf("writing the list of rules: %w", err)
	}
	return nil
}
