package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flux-admission/flux-admission/internal/report"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// addCompletions adds completions of the values of flags and arguments. The error names an unknown command or flag.
func addCompletions(root *cobra.Command) error {
	words := func(list ...cobra.Completion) cobra.CompletionFunc {
		return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
	}
	yamlFiles := cobra.FixedCompletions([]cobra.Completion{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt)
	directories := cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	var errs []error
	for _, v := range []struct {
		commands, flag string // the flag "" is the first argument
		complete       cobra.CompletionFunc
	}{
		{"audit check", "output", words(reportFormats()...)},
		{"audit check", "fail-on", words("deny", "warn", "unknown", "never")},
		{"check", "changed-since", cobra.NoFileCompletions},
		{"build check diff fix get", "var", cobra.NoFileCompletions},
		{"audit build check diff fix get serve rules", "policy", yamlFiles},
		{"audit build check diff fix get serve", "charts", directories},
		{"build", "output", words("yaml", "json")},
		{"diff", "output", words("text", "markdown", "html", "json")},
		{"get", "output", words("table", "wide", "yaml", "json", "name")},
		{"build", "", words("ks", "hr")},
		{"get", "", firstOnly(words("ks", "hr", "sources", "images", "all"))},
		{"why", "output", words("text", "json", "html")},
		{"why", "tree", directories},
		{"why", "", firstOnly(words("kustomization", "helmrelease"))},
		{"audit rotate why", "context", cobra.NoFileCompletions},
		{"audit", "webhook-namespace", cobra.NoFileCompletions},
		{"rotate", "namespace", cobra.NoFileCompletions},
		{"serve", "audit-reports", words("none", "openreports", "policyreport")},
		{"serve", "log-level", words("debug", "info", "warn", "error")},
		{"serve", "log-format", words("json", "console")},
		{"rules", "output", words(listText, listWide, listJSON)},
		{"fix", "rule", completeRule},
		{"audit check", "only", completeRule},
		{"audit check", "skip", completeRule},
		{"audit check", "deny", completeRule},
		{"audit check", "warn", completeRule},
		{"fix", "", firstOnly(directories)},
		{"explain", "", firstOnly(completeRule)},
	} {
		for name := range strings.FieldsSeq(v.commands) {
			c, _, err := root.Find([]string{name})
			switch {
			case err != nil:
			case v.flag == "":
				c.ValidArgsFunction = v.complete
			default:
				err = c.RegisterFlagCompletionFunc(v.flag, v.complete)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("completion of %s --%s: %w", name, v.flag, err))
			}
		}
	}
	return errors.Join(errs...)
}

// firstOnly completes the first argument only.
func firstOnly(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(c, args, begun)
	}
}

func reportFormats() []cobra.Completion {
	var names []cobra.Completion
	for _, f := range report.Formats() {
		names = append(names, string(f))
	}
	return names
}

// completeRule completes names of rules, or IDs if an ID has been begun, with the titles of the rules.
func completeRule(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var out []cobra.Completion
	for _, r := range allvalidators.Rules() {
		switch {
		case strings.HasPrefix(r.Name, begun):
			out = append(out, cobra.CompletionWithDesc(r.Name, r.Doc.Title))
		case strings.HasPrefix(r.ID, begun):
			out = append(out, cobra.CompletionWithDesc(r.ID, r.Doc.Title))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
