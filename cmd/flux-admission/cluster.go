package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// addClusterFlags adds the flags of the commands that a person runs on a cluster.
func addClusterFlags(c *cobra.Command, kubeconfig, kubecontext *string) {
	f := c.Flags()
	f.StringVar(kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, or ~/.kube/config)")
	f.StringVar(kubecontext, "context", "", "context of the kubeconfig file (default: its current context)")
}

// clusterConfig returns the client configuration of a person.
func clusterConfig(kubeconfig, kubecontext string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: kubecontext}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, errors.New("no cluster: name a kubeconfig file with --kubeconfig or $KUBECONFIG")
	case err != nil:
		return nil, fmt.Errorf("--kubeconfig, --context: %w", err)
	}
	return config, nil
}

// clusterName returns the name of a cluster for reports: that of the context.
func clusterName(kubeconfig, kubecontext string) string {
	if kubecontext != "" {
		return kubecontext
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	if raw, err := rules.Load(); err == nil && raw.CurrentContext != "" {
		return raw.CurrentContext
	}
	return "cluster"
}
