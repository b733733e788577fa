package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"github.com/flux-admission/flux-admission/webhook/rotate"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// requestTimeout limits one request to the API server.
const requestTimeout = 30 * time.Second

func newRotate() *cobra.Command {
	var o rotate.Options
	var kubeconfig, kubecontext string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the self-managed CA of the webhook servers",
		Long: "Replace the CA that the webhook servers of a cluster manage themselves, and wait until\n" +
			"each of them serves a certificate of the new one. No review fails meanwhile. The old CA\n" +
			"stays in the caBundle for an hour; with --revoke it and every other CA leave it as soon\n" +
			"as all webhook servers have their new certificate: after its key has leaked, or if\n" +
			"somebody else wrote the caBundle.\n\n" +
			"Exit code 0: the CA was replaced. 1: it was replaced, but a webhook server does not\n" +
			"serve a certificate of it, or other CAs are still trusted. 2: nothing was changed: no\n" +
			"cluster, no permission, nothing installed, or cert-manager manages the CA.",
		Example: "  flux-admission rotate               # the old CA is trusted for an hour more\n" +
			"  flux-admission rotate --revoke      # its key has leaked",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Progress = c.OutOrStdout()
			return runRotate(c.Context(), o, kubeconfig, kubecontext, timeout)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.Revoke, "revoke", false, "remove every CA but the new one from the caBundle (default false)")
	addClusterFlags(c, &kubeconfig, &kubecontext)
	f.StringVarP(&o.Namespace, "namespace", "n", webhookconfig.Namespace, "namespace of the webhook servers")
	f.StringVar(&o.WebhookConfig, "webhook-config", webhookconfig.Name, "name of the webhook configurations, as for serve")
	f.StringVar(&o.Secret, "ca-secret", webhookconfig.Name+"-ca", "Secret of the CA, in --namespace, as for serve")
	f.DurationVar(&timeout, "timeout", 5*time.Minute, "longest time to wait for the webhook servers")
	return c
}

// runRotate rotates the CA. An error after the first change is a runError.
func runRotate(ctx context.Context, o rotate.Options, kubeconfig, kubecontext string, timeout time.Duration) error {
	if timeout <= 0 {
		return fmt.Errorf("--timeout %s must be positive", timeout)
	}
	config, err := clusterConfig(kubeconfig, kubecontext)
	if err != nil {
		return err
	}
	config.Timeout = requestTimeout
	if o.Client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done after --timeout %s", timeout))
	defer cancel()
	r, err := rotate.Prepare(ctx, o)
	if err != nil {
		return err
	}
	if err := r.Run(ctx); err != nil {
		return runError{err}
	}
	return nil
}
