package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/flux-admission/flux-admission/internal/rulecatalog"
)

func newExplain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain RULE",
		Short: "Explain a rule: what it reports, why, and how to fix it",
		Long: "Explain what a rule reports, why it matters, how to fix it, and its settings in\n" +
			"the policy, with an example. RULE is a name or an ID, in upper or lower case;\n" +
			"the rules command lists them.",
		Example: "  flux-admission explain helm-values-schema\n  flux-admission explain ks001",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf(
					"explain takes the name or ID of one rule, got %d arguments; `flux-admission rules` lists them", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			e, err := rulecatalog.Explain(args[0])
			if err != nil {
				return err
			}
			if _, err := io.WriteString(c.OutOrStdout(), e.String()); err != nil {
				return fmt.Errorf("writing the explanation: %w", err)
			}
			return nil
		},
	}
}
