package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/policy/source"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/webhook"
	"github.com/flux-admission/flux-admission/webhook/certs"
	"github.com/flux-admission/flux-admission/webhook/deferred"
	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// Deadlines of starting and stopping.
const (
	reachTimeout = 10 * time.Second
	drainTimeout = 35 * time.Second // longer than the longest that a review may take
)

type serveOptions struct {
	kubeconfig, policy, namespace string
	charts                        []string
	chartWait                     time.Duration
	chartCache                    string
	chartCacheDir                 string
	chartsAllowLocal              bool
	noCrossNamespaceRefs          bool
	chartWarm                     bool
	schemaHosts                   []string
	webhookHost                   string
	webhookPort                   int
	metricsAddress, healthAddress string
	serviceName                   string
	dnsNames                      []string
	webhookConfig, caSecret       string
	certFile, keyFile             string
	caDuration, leafDuration      time.Duration
	shutdownDelay                 time.Duration
	logLevel, logFormat           string
}

func newServe() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Answer the admission webhooks of a cluster",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return serve(c.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.policy, "policy", "", "file with the AdmissionPolicy, for clusters without its CRD (default: the AdmissionPolicy in the cluster, or the one that ships)")
	f.StringArrayVar(&o.charts, "charts", nil, "directory with Helm charts and chart archives, matched by name and version whatever their repository; may be repeated")
	f.DurationVar(&o.chartWait, "chart-wait", 2*time.Second, "how long a review may wait for a chart to be fetched; 0 never waits")
	f.BoolVar(&o.chartWarm, "chart-warm", true, "read the charts of the cluster's releases before the first review needs them")
	f.StringVar(&o.chartCache, "chart-cache", "96Mi", "memory for charts and their compiled schemas")
	f.StringVar(&o.chartCacheDir, "chart-cache-dir", "", "directory that keeps charts across restarts (default: none)")
	f.StringArrayVar(&o.schemaHosts, "schema-host", nil, "host that a $ref of a chart's schema may lead to; may be repeated (default: none)")
	f.BoolVar(&o.noCrossNamespaceRefs, "no-cross-namespace-refs", false, "take sources of other namespaces for blocked, as Flux's controllers do with the flag of this name")
	f.BoolVar(&o.chartsAllowLocal, "charts-allow-local", false, "let a chart repository redirect to loopback and link-local addresses")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file (default: the Pod's service account, or $KUBECONFIG)")
	f.StringVar(&o.namespace, "namespace", "", "namespace that the gate runs in (default: $POD_NAMESPACE, or "+webhookconfig.Namespace+")")
	f.StringVar(&o.webhookHost, "webhook-host", "", "address to serve the webhooks on (default: every address)")
	f.IntVar(&o.webhookPort, "webhook-port", 9443, "port to serve the webhooks on")
	f.StringVar(&o.metricsAddress, "metrics-bind-address", ":8080", "address to serve /metrics on, or 0 for none")
	f.StringVar(&o.healthAddress, "health-probe-bind-address", ":8081", "address to serve /healthz and /readyz on")
	f.StringVar(&o.serviceName, "service-name", webhookconfig.Name, "Service that the API server calls; its names are put into the certificate")
	f.StringArrayVar(&o.dnsNames, "dns-name", nil, "further DNS name or IP address to put into the certificate; may be repeated")
	f.StringVar(&o.webhookConfig, "webhook-config", webhookconfig.Name, "name of the webhook configurations to publish the CA in; empty publishes it nowhere")
	f.StringVar(&o.caSecret, "ca-secret", webhookconfig.Name+"-ca", "Secret in the gate's namespace that keeps the CA")
	f.StringVar(&o.certFile, "tls-cert-file", "", "certificate to serve, read again when it changes, instead of a self-managed one")
	f.StringVar(&o.keyFile, "tls-key-file", "", "key of --tls-cert-file")
	f.DurationVar(&o.caDuration, "ca-duration", 365*24*time.Hour, "how long a self-managed CA is valid; it is renewed after two thirds")
	f.DurationVar(&o.leafDuration, "leaf-duration", 7*24*time.Hour, "how long a self-managed certificate is valid; it is renewed after two thirds")
	f.DurationVar(&o.shutdownDelay, "shutdown-delay", 10*time.Second, "how long to go on serving after SIGTERM, not ready any more, until the Service has forgotten this replica")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "json", "json or console")
	return c
}

// serve runs the gate until ctx ends. It is the whole wiring: read it from top to bottom. Whatever it returns before the manager starts is a
// mistake of the call or its surroundings; what the manager returns is a runError.
func serve(ctx context.Context, o serveOptions) error {
	log, err := newLogger(o.logLevel, o.logFormat)
	if err != nil {
		return err
	}
	if o.namespace == "" {
		if o.namespace = os.Getenv("POD_NAMESPACE"); o.namespace == "" {
			o.namespace = webhookconfig.Namespace
		}
	}

	// The rules, the mutators and the policy that binds them.
	rules, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		return fmt.Errorf("building the suite of rules: %w", err)
	}
	mutations, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		return fmt.Errorf("building the set of mutators: %w", err)
	}
	compile := func(p *v1alpha1.AdmissionPolicy) (*policy.Policy, error) {
		return policy.Compile(p, rules, mutations, nil)
	}
	registry := prometheus.NewRegistry()
	counts := metrics.New(registry, kinds()...)
	var policies policySource
	if o.policy != "" {
		if policies, err = source.NewFile(o.policy, compile, counts.PolicyReload, log); err != nil {
			return err
		}
	}

	// The ports, taken before anything else starts.
	webhookListener, err := listen(ctx, "--webhook-host and --webhook-port", net.JoinHostPort(o.webhookHost, strconv.Itoa(o.webhookPort)))
	if err != nil {
		return err
	}
	defer func() { _ = webhookListener.Close() }()
	healthListener, err := listen(ctx, "--health-probe-bind-address", o.healthAddress)
	if err != nil {
		return err
	}
	defer func() { _ = healthListener.Close() }()
	var metricsListener net.Listener
	if o.metricsAddress != "0" {
		if metricsListener, err = listen(ctx, "--metrics-bind-address", o.metricsAddress); err != nil {
			return err
		}
		defer func() { _ = metricsListener.Close() }()
	}

	// The charts. What a review waits for has to be there before the API server gives up on the review.
	if most := (webhookconfig.TimeoutSeconds - 1) * time.Second; o.chartWait < 0 || o.chartWait > most {
		return fmt.Errorf("--chart-wait %s: give 0 to %s; the API server waits %d s for the whole review", o.chartWait, most, webhookconfig.TimeoutSeconds)
	}
	chartCache, err := resource.ParseQuantity(o.chartCache)
	if err != nil || chartCache.Value() <= 0 {
		return fmt.Errorf("--chart-cache %s: give a size in bytes such as 256Mi", o.chartCache)
	}
	chartCounts := newChartMetrics(registry)
	resolver, err := chartsource.New(chartsource.Options{
		Dirs: o.charts, Wait: o.chartWait, CacheBytes: chartCache.Value(), CacheDir: o.chartCacheDir,
		NoCrossNamespace: o.noCrossNamespaceRefs, SchemaHosts: o.schemaHosts, AllowLoopback: o.chartsAllowLocal, Observer: chartCounts, Log: log.WithName("charts"),
	})
	if err != nil {
		return fmt.Errorf("--charts, --chart-cache-dir: %w", err)
	}
	defer resolver.Close()

	// The cluster.
	config, err := restConfig(ctx, o.kubeconfig)
	if err != nil {
		return err
	}
	if policies == nil {
		objects, err := dynamic.NewForConfig(config)
		if err != nil {
			return fmt.Errorf("making a client for the AdmissionPolicy: %w", err)
		}
		policies = source.NewCluster(objects, compile, counts.PolicyReload, log)
	}

	// The certificate.
	certificate, err := certificateSource(o, config, counts)
	if err != nil {
		return err
	}
	counts.CertificateExpiry(certificate.Expiry)

	// The manager, and what rules may look at.
	drain := drainTimeout
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Logger:  log,
		Metrics: server.Options{BindAddress: "0"}, // served below, with the gate's own
		Cache: cache.Options{
			// No rule starts a cluster-wide watch unnoticed: what is read from the cache is named here.
			ReaderFailOnMissingInformer:  true,
			DefaultTransform:             cache.TransformStripManagedFields(),
			DefaultUnsafeDisableDeepCopy: new(true), // lookups share objects, and nobody changes them
		},
		GracefulShutdownTimeout: &drain,
	})
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	namespaces := &unstructured.Unstructured{}
	namespaces.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"})
	namespaceInformer, err := mgr.GetCache().GetInformer(ctx, namespaces, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watching namespaces: %w", err)
	}
	objects := lookup.NewCluster(mgr.GetCache(), mgr.GetAPIReader(), mgr.GetRESTMapper(), resolver)
	warmer := &deferred.Prefetcher{Lookup: objects, Log: log.WithName("charts")}
	changed := warmer.Changed
	if !o.chartWarm {
		changed = nil
	}
	watches := lookup.NewWatches(mgr.GetCache(), mgr.GetRESTMapper(), watched(), changed, log.WithName("watches"))
	objects.Watched = watches.Synced

	// The webhooks.
	gate := func() webhook.Gate {
		if p := policies.Get(); p != nil {
			return p
		}
		return nil
	}
	late := &deferred.Reevaluator{
		Policy: func() deferred.Reviewer {
			if p := policies.Get(); p != nil {
				return p
			}
			return nil
		},
		Lookup: objects, Observe: chartCounts.Late, Log: log.WithName("late"),
	}
	webhooks := webhook.NewServer(
		&webhook.Validator{Policy: gate, Lookup: objects, Metrics: counts, Log: log, Later: late.Later},
		&webhook.Mutator{Policy: gate, Lookup: objects, Metrics: counts, Log: log},
		&webhook.PolicyValidator{Check: func(data []byte) error { return policy.Check(data, rules, mutations) }, Log: log},
		counts, log,
	)
	webhookServer := webhooks.HTTP(certificate.GetCertificate)
	webhookServer.ErrorLog = standardLog(log)

	// Health: readyz names what is not ready.
	checks := map[string]func() error{"serving": webhooks.Ready, "caches": cachesSynced(namespaceInformer, watches), "policy": policies.Ready}
	maps.Copy(checks, certificate.Checks())
	health := http.NewServeMux()
	health.Handle("/readyz", &readiness{checks: checks, log: log})
	health.HandleFunc("/healthz", alive)
	metricsMux := http.NewServeMux()
	metricsMux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{registry, crmetrics.Registry}, promhttp.HandlerOpts{ErrorLog: standardLog(log)}))

	// The manager starts the servers first and stops them last, so that what is being answered when the stop comes has all it needs.
	runnables := []manager.Runnable{
		certificate, policies, watches, late,
		&manager.Server{Name: "health", Server: plainServer(health), Listener: healthListener, ShutdownTimeout: &drain},
		&manager.Server{Name: "webhooks", Server: webhookServer, Listener: tls.NewListener(webhookListener, webhookServer.TLSConfig), ShutdownTimeout: &drain},
	}
	if metricsListener != nil {
		runnables = append(runnables, &manager.Server{Name: "metrics", Server: plainServer(metricsMux), Listener: metricsListener, ShutdownTimeout: &drain})
	}
	if o.chartWarm {
		runnables = append(runnables, warmer)
	}
	for _, r := range runnables {
		if err := mgr.Add(r); err != nil {
			return fmt.Errorf("setting up: %w", err)
		}
	}
	log.Info("Starting", "version", versionString(), "webhooks", webhookListener.Addr().String(), "health", healthListener.Addr().String())
	ctx, stop := drainFirst(ctx, webhooks, o.shutdownDelay, log)
	defer stop()
	if err := mgr.Start(ctx); err != nil {
		return runError{fmt.Errorf("serving: %w", err)}
	}
	log.Info("Stopped")
	return nil
}

// policySource keeps the policy in force up to date.
type policySource interface {
	manager.Runnable
	// Get returns nil before there is a policy.
	Get() *policy.Policy
	Ready() error
}

// drainFirst returns a context that ends some time after ctx: in between the gate is not ready and goes on serving, so that it gets no new
// requests when it stops. The function ends it at once.
func drainFirst(ctx context.Context, webhooks *webhook.Server, delay time.Duration, log logr.Logger) (context.Context, func()) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer cancel()
		select {
		case <-ctx.Done():
		case <-out.Done():
			return
		}
		webhooks.Drain()
		log.Info("Shutting down", "servingFor", delay.String())
		select {
		case <-time.After(delay):
		case <-out.Done():
		}
	}()
	return out, cancel
}

func certificateSource(o serveOptions, config *rest.Config, counts *metrics.Metrics) (certs.Source, error) {
	if (o.certFile == "") != (o.keyFile == "") {
		return nil, errors.New("--tls-cert-file and --tls-key-file go together: give both, or none for a self-managed certificate")
	}
	if o.certFile != "" {
		source, err := certs.NewFiles(o.certFile, o.keyFile)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert-file, --tls-key-file: %w", err)
		}
		return source, nil
	}
	service := o.serviceName + "." + o.namespace
	source, err := certs.NewSelfManaged(certs.Options{
		Config: config, Namespace: o.namespace, Secret: o.caSecret, WebhookConfig: o.webhookConfig,
		Names:      append([]string{service + ".svc", service + ".svc.cluster.local", service}, o.dnsNames...),
		CADuration: o.caDuration, LeafDuration: o.leafDuration, Published: counts.CAPublication,
	})
	if err != nil {
		return nil, fmt.Errorf("--ca-duration, --leaf-duration: %w", err)
	}
	return source, nil
}

// restConfig finds the cluster and asks it for its version, so that a wrong address is told before anything starts.
func restConfig(ctx context.Context, kubeconfig string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	rules.WarnIfAllMissing = false
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err) && kubeconfig == "":
		return nil, errors.New("no cluster to serve: run it in a Pod, or name a kubeconfig file with --kubeconfig or $KUBECONFIG")
	case err != nil:
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	// The API server's own priority and fairness bounds the load; the client's limit would only delay a review.
	config.QPS = -1
	probe := rest.CopyConfig(config)
	probe.Timeout = reachTimeout
	d, err := discovery.NewDiscoveryClientForConfig(probe)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	if err := d.RESTClient().Get().AbsPath("/version").Do(ctx).Error(); err != nil {
		return nil, fmt.Errorf("the cluster at %s does not answer, check --kubeconfig and the network: %w", config.Host, err)
	}
	return config, nil
}

func listen(ctx context.Context, flags, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s, choose another address with %s: %w", address, flags, err)
	}
	return l, nil
}

// kinds are those that a rule or a mutator looks at.
func kinds() []schema.GroupKind {
	var out []schema.GroupKind
	for _, r := range allvalidators.Rules() {
		out = append(out, r.KindsAt(validators.StageAdmission)...)
	}
	for _, m := range allmutators.Mutators() {
		out = append(out, m.Kinds...)
	}
	return out
}

// watched are the kinds that are read from informers: what rules, mutators and the search for charts look up, but for Secrets and ConfigMaps, of which the gate
// keeps nothing, and Namespaces, which are watched from the start.
func watched() []schema.GroupKind {
	reads := []schema.GroupKind{flux.HelmRelease, flux.Kustomization, flux.HelmRepository, flux.HelmChart, flux.OCIRepository, flux.GitRepository, flux.Bucket}
	for _, r := range allvalidators.Rules() {
		if r.Stages.Has(validators.StageAdmission) {
			reads = append(reads, r.Reads...)
		}
	}
	for _, m := range allmutators.Mutators() {
		reads = append(reads, m.Reads...)
	}
	var out []schema.GroupKind
	for _, gk := range reads {
		if gk.Group != "" && !slices.Contains(out, gk) {
			out = append(out, gk)
		}
	}
	return out
}

func plainServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
}
