package main

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/flux-admission/flux-admission/internal/rulecatalog"
)

// Formats of the list of rules.
const (
	listText = "text"
	listWide = "wide"
	listJSON = "json"
)

// terminalWidth returns the number of columns of the terminal that a writer is; helpWidth if it is none.
func terminalWidth(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return helpWidth
}

func newRules() *cobra.Command {
	var output, policyFile string
	c := &cobra.Command{
		Use:   "rules",
		Short: "List all rules and their actions",
		Long: "List all rules with their actions: the CLUSTER column has the action of the\n" +
			"admission webhook on a finding, the CHECK column that of check. Without --policy,\n" +
			"these are the actions of the default policy; check uses the AdmissionPolicy of\n" +
			"the tree if there is one. Rules without an action in the cluster run only in\n" +
			"check. The table is as wide as the terminal, or else 80 columns; --output wide\n" +
			"adds whole titles and kinds. Use explain RULE for details.",
		Example: "  flux-admission rules\n" +
			"  flux-admission rules --output wide\n" +
			"  flux-admission rules --policy policy.yaml --output json",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains([]string{listText, listWide, listJSON}, output) {
				return fmt.Errorf("--output %q is not a format: use %s, %s or %s", output, listText, listWide, listJSON)
			}
			list, err := rulecatalog.List(policyFile)
			if err != nil {
				return err
			}
			switch out := c.OutOrStdout(); output {
			case listJSON:
				return rulecatalog.WriteJSON(out, list)
			case listWide:
				return rulecatalog.WriteTable(out, list, 0)
			default:
				return rulecatalog.WriteTable(out, list, terminalWidth(out))
			}
		},
	}
	c.Flags().StringVarP(&output, "output", "o", listText, "format of the list: "+listText+", "+listWide+" or "+listJSON)
	c.Flags().StringVar(&policyFile, "policy", "",
		"file with the AdmissionPolicy whose actions are listed (default: the default policy)")
	return c
}
