package serve

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// connectTimeout limits the first request to the API server.
const connectTimeout = 10 * time.Second

// retryInterval is the time between two requests to an API server that does not respond.
const retryInterval = 2 * time.Second

// restConfig returns the client configuration of the cluster. It reads the version of the API server, so that a wrong
// address is reported before anything starts. In a Pod, whose configuration is not a person's, it waits for an API server
// that does not respond: a process that ends instead is started again later and later, up to five minutes after the outage.
func restConfig(ctx context.Context, kubeconfig string, log logr.Logger) (*rest.Config, error) {
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
	inPod, err := rest.InClusterConfig()
	wait := err == nil && kubeconfig == "" && inPod.Host == config.Host
	return config, connected(ctx, config, wait, log)
}

// connected reads the version of the API server. If wait is set, it does so until the API server responds or ctx ends.
func connected(ctx context.Context, config *rest.Config, wait bool, log logr.Logger) error {
	probe := rest.CopyConfig(config)
	probe.Timeout = connectTimeout
	d, err := discovery.NewDiscoveryClientForConfig(probe)
	if err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	for {
		err := d.RESTClient().Get().AbsPath("/version").MaxRetries(0).Do(ctx).Error()
		if err == nil {
			return nil
		}
		err = fmt.Errorf("the cluster at %s does not respond; check --kubeconfig and the network: %w", config.Host, err)
		if !wait {
			return err
		}
		log.Error(err, "Waiting for the API server")
		select {
		case <-time.After(retryInterval):
		case <-ctx.Done():
			return err
		}
	}
}
