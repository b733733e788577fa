package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/flux-admission/flux-admission/internal/audit"
	"github.com/flux-admission/flux-admission/internal/check/progress"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

type auditOptions struct {
	audit.Options
	reportOptions
	kubeconfig, context, namespace string
}

func newAudit() *cobra.Command {
	var o auditOptions
	c := &cobra.Command{
		Use:   "audit",
		Short: "Evaluate what a cluster has already as the admission webhook would",
		Long: "Read the objects of a cluster and evaluate each of them with the rules and the policy\n" +
			"of the admission webhook, which sees only what is written. Nothing in the cluster is\n" +
			"changed, and no webhook server is needed. In the mode AuditOnly, the actions are those\n" +
			"that the mode Enforce would take.\n\n" +
			"Secrets and ConfigMaps are read one by one, where a release takes values from them. What\n" +
			"the user may not read is named as not evaluated.\n\n" +
			"Exit code 0: nothing would be denied. 1: there are findings at or above --fail-on.\n" +
			"2: the audit could not run.",
		Example: "  flux-admission audit                     # the cluster of the current context\n" +
			"  flux-admission audit --context prod --fetch-charts --output html >audit.html\n" +
			"  flux-admission audit --policy enforce.yaml --only KS001,HR001",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runAudit(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	addClusterFlags(c, &o.kubeconfig, &o.context)
	f.StringVar(&o.namespace, "webhook-namespace", webhookconfig.Namespace,
		"namespace of the webhook servers, which they do not evaluate")
	f.StringVar(&o.Policy, "policy", "",
		"file with an AdmissionPolicy (default: that of the cluster, or else the default policy)")
	f.StringArrayVar(&o.Charts.Dirs, "charts", nil, "directory with Helm charts and chart archives; may be repeated")
	addChartFlags(c, &o.Charts.Fetch, &o.Charts.Cache, &o.Charts.RegistryConfig, &o.Charts.SchemaHosts)
	addReportFlags(c, &o.reportOptions)
	addRuleFlags(c, &o.Flags)
	return c
}

func runAudit(ctx context.Context, o auditOptions, stdout, stderr io.Writer) error {
	if err := o.validate(); err != nil {
		return err
	}
	if err := resolveRules(&o.Flags); err != nil {
		return err
	}
	var err error
	if o.Config, err = clusterConfig(o.kubeconfig, o.context); err != nil {
		return err
	}
	o.Name = clusterName(o.kubeconfig, o.context)
	// A person waits for the result: the API server's own priority and fairness limits the load.
	o.Config.QPS = -1
	o.Excluded = webhookconfig.Excluded(o.namespace)
	bar := progress.New(stderr, o.noProgress)
	defer bar.End()
	o.Progress, o.Charts.Warn = bar.Report, warnTo(stderr)
	result, err := audit.Run(ctx, o.Options)
	if err != nil {
		return err
	}
	bar.End()
	if err := o.write(result, stdout, report.Options{Category: "audit"}); err != nil {
		return err
	}
	return o.verdict(result.Summary)
}
