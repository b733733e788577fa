package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/flux-admission/flux-admission/internal/audit"
	"github.com/flux-admission/flux-admission/webhook/serve"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

func newServe() *cobra.Command {
	var o serve.Options
	var logLevel, logFormat string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the admission webhooks of a cluster",
		Example: "  flux-admission serve                # in a Pod, as manifests/ have it\n" +
			"  flux-admission serve --policy policy.yaml --kubeconfig ~/.kube/config",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runServe(c.Context(), o, logLevel, logFormat)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Policy, "policy", "",
		"AdmissionPolicy file, for a cluster without the CRD (default: the AdmissionPolicy of the cluster, or the default policy)")
	f.StringVar(&o.DefaultMode, "default-mode", "",
		"mode of the default policy, which is in force until the cluster has an AdmissionPolicy: Enforce or AuditOnly (default: Enforce)")
	f.StringArrayVar(&o.Charts, "charts", nil,
		"directory with Helm charts, matched by name and version whatever their source; repeatable (default: none)")
	f.DurationVar(&o.ChartWait, "chart-wait", 2*time.Second, "longest time that a review waits for a chart; 0 to never wait")
	f.BoolVar(&o.ChartPrefetch, "chart-prefetch", true, "read the charts of all releases before the first review needs them, while they fit into --chart-cache")
	f.StringVar(&o.ChartCache, "chart-cache", "96Mi", "memory for charts and their compiled schemas, in bytes")
	f.StringVar(&o.ChartCacheDir, "chart-cache-dir", "", "directory to keep charts in across restarts (default: none)")
	f.StringVar(&o.StateDir, "state-dir", "",
		"directory that outlives the process, to not prefetch a chart again that ended it; an emptyDir will do (default: none)")
	f.StringArrayVar(&o.SchemaHosts, "schema-host", nil,
		"host that a $ref in a chart's values schema may refer to; repeatable (default: none)")
	f.BoolVar(&o.NoCrossNamespaceRefs, "no-cross-namespace-refs", false,
		"treat references to sources of other namespaces as denied, like the flag of this name of Flux's controllers")
	f.BoolVar(&o.ChartsAllowLocal, "charts-allow-local", false,
		"allow chart repositories to redirect to loopback and link-local addresses")
	f.BoolVar(&o.Audit, "audit", true, "evaluate the objects that the cluster has already, in the replica that leads")
	f.DurationVar(&o.AuditInterval, "audit-interval", 10*time.Minute,
		"how often --audit evaluates objects again whose chart may have changed in its repository")
	f.StringVar(&o.AuditReports, "audit-reports", string(audit.NoReports),
		"format of the reports of --audit, in --namespace: openreports, policyreport or none")
	f.BoolVar(&o.AuditHealth, "audit-health", false, "have --audit evaluate the rules on the state of CustomResourceDefinitions, ExternalSecrets, backups, alerts and dashboards")
	f.BoolVar(&o.AuditEvents, "audit-events", false, "have --audit write an Event for each root of what is not ready, on the object of Flux that applies it")
	f.StringVar(&o.AuditBuildDir, "audit-build-dir", "",
		"directory to unpack artifacts in: --audit then also builds and evaluates what Flux is about to apply (default: it does not)")
	f.StringArrayVar(&o.ArtifactHosts, "artifact-host", nil,
		"host that --audit-build-dir fetches artifacts from, beside source-controller and source-watcher in flux-system; repeatable (default: none)")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file (default: the Pod's service account, or $KUBECONFIG)")
	f.StringVar(&o.Namespace, "namespace", "",
		"namespace of the webhook server (default: $POD_NAMESPACE, or "+webhookconfig.Namespace+")")
	f.StringVar(&o.WebhookHost, "webhook-host", "", "address to serve the webhooks on (default: all addresses)")
	f.IntVar(&o.WebhookPort, "webhook-port", 9443, "port to serve the webhooks on")
	f.StringVar(&o.MetricsAddress, "metrics-bind-address", ":8080", "address to serve /metrics on; 0 to disable")
	f.StringVar(&o.HealthAddress, "health-probe-bind-address", ":8081", "address to serve /healthz and /readyz on")
	f.StringVar(&o.ServiceName, "service-name", webhookconfig.Name,
		"Service that the API server calls, for the names in a self-managed certificate")
	f.StringArrayVar(&o.DNSNames, "dns-name", nil,
		"additional DNS name or IP address in a self-managed certificate; repeatable (default: none)")
	f.StringVar(&o.WebhookConfig, "webhook-config", webhookconfig.Name,
		"name of the webhook configurations to write the caBundle into; empty to disable")
	f.StringVar(&o.CASecret, "ca-secret", webhookconfig.Name+"-ca", "Secret of the self-managed CA, in --namespace")
	f.StringVar(&o.TLSCertFile, "tls-cert-file", "",
		"certificate file, reloaded when it changes (default: a self-managed certificate)")
	f.StringVar(&o.TLSKeyFile, "tls-key-file", "", "private key file of --tls-cert-file (default: none)")
	f.StringVar(&o.ClientCAFile, "client-ca-file", "",
		"CA of the API server's client certificate, reloaded when it changes; other clients get 401 "+
			"(default: clients are not authenticated)")
	f.StringArrayVar(&o.ClientCANames, "client-ca-name", nil,
		"common name or DNS name that a client certificate of --client-ca-file must have; repeatable (default: any)")
	f.DurationVar(&o.CADuration, "ca-duration", 365*24*time.Hour,
		"validity of the self-managed CA, which is renewed after two thirds of it")
	f.DurationVar(&o.LeafDuration, "leaf-duration", 7*24*time.Hour,
		"validity of the self-managed certificate, which is renewed after two thirds of it")
	f.DurationVar(&o.ShutdownDelay, "shutdown-delay", 10*time.Second,
		"how long to keep serving after SIGTERM while endpoints are updated")
	f.StringVar(&logLevel, "log-level", "info", "log level: debug, info, warn or error")
	f.StringVar(&logFormat, "log-format", "json", "log format: json or console")
	return c
}

// runServe runs the webhook server until ctx ends. An error before it runs is a mistake of the call or its environment;
// one after that is a runError.
func runServe(ctx context.Context, o serve.Options, logLevel, logFormat string) error {
	log, err := newLogger(logLevel, logFormat)
	if err != nil {
		return err
	}
	if o.Namespace == "" {
		if o.Namespace = os.Getenv("POD_NAMESPACE"); o.Namespace == "" {
			o.Namespace = webhookconfig.Namespace
		}
	}
	o.Version = versionString()
	s, err := serve.New(ctx, o, log)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Run(ctx); err != nil {
		return runError{err}
	}
	return nil
}
