package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/flux-admission/flux-admission/internal/rulecatalog"
)

// Formats of the list of rules.
const (
	listText = "text"
	listJSON = "json"
)

func newRules() *cobra.Command {
	var output, policyFile string
	c := &cobra.Command{
		Use:   "rules",
		Short: "List all rules and their actions",
		Long: "List all rules with their actions: the CLUSTER column has the action of the\n" +
			"admission webhook on a finding, the CHECK column that of check. Without --policy,\n" +
			"these are the actions of the default policy; check uses the AdmissionPolicy of\n" +
			"the tree if there is one. Rules without an action in the cluster run only in\n" +
			"check. Use explain RULE for details.",
		Example: "  flux-admission rules\n" +
			"  flux-admission rules --policy policy.yaml --output json",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != listText && output != listJSON {
				return fmt.Errorf("--output %q is not a format: use %s or %s", output, listText, listJSON)
			}
			list, err := rulecatalog.List(policyFile)
			if err != nil {
				return err
			}
			if output == listJSON {
				return rulecatalog.WriteJSON(c.OutOrStdout(), list)
			}
			return rulecatalog.WriteTable(c.OutOrStdout(), list)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", listText, "format of the list: "+listText+" or "+listJSON)
	c.Flags().StringVar(&policyFile, "policy", "",
		"file with the AdmissionPolicy whose actions are listed (default: the default policy)")
	return c
}
