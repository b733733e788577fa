package serve

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// connectTimeout limits the first request to the API server.
const connectTimeout = 10 * time.Second

// restConfig returns the client configuration of the cluster. It reads the version of the API server, so that a wrong
// address is reported before anything starts.
func restConfig(ctx context.Context, kubeconfig string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	rules.WarnIfAllMissing = false
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err) && kubeconfig == "":
		return nil, errors.New(
			"no cluster to serve: run it in a Pod, or name a kubeconfig file with --kubeconfig or $KUBECONFIG")
	case err != nil:
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	// The API server's own priority and fairness limits the load; a limit of the client would only delay reviews.
	config.QPS = -1
	probe := rest.CopyConfig(config)
	probe.Timeout = connectTimeout
	d, err := discovery.NewDiscoveryClientForConfig(probe)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	if err := d.RESTClient().Get().AbsPath("/version").Do(ctx).Error(); err != nil {
		return nil, fmt.Errorf("the cluster at %s does not respond; check --kubeconfig and the network: %w", config.Host, err)
	}
	return config, nil
}
