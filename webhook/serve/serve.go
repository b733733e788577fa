// Package serve wires the webhook server: the policy, the charts, the manager with its informers, the webhooks, and the
// HTTP servers.
package serve

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/audit"
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

// shutdownTimeout is how long the servers wait for open requests, longer than any of them may take.
const shutdownTimeout = 35 * time.Second

// Options are the flags of the serve command; errors name a flag by its name there.
type Options struct {
	// Version is logged.
	Version    string
	Kubeconfig string
	// Policy is a file with the AdmissionPolicy; empty for the AdmissionPolicy of the cluster.
	Policy string
	// DefaultMode is the mode of the default policy, which is in force until there is an AdmissionPolicy; empty for its own.
	DefaultMode string
	// Namespace is where the server runs.
	Namespace string

	Charts               []string
	ChartWait            time.Duration
	ChartPrefetch        bool
	ChartCache           string
	ChartCacheDir        string
	StateDir             string
	SchemaHosts          []string
	NoCrossNamespaceRefs bool
	ChartsAllowLocal     bool

	// Audit evaluates stored objects in the background. AuditInterval is how often those with a chart are evaluated again,
	// AuditReports the format of the reports, or "none".
	Audit         bool
	AuditInterval time.Duration
	AuditReports  string
	// AuditHealth has the audit evaluate the rules on the state of objects of others than Flux.
	AuditHealth bool
	// AuditEvents has an Event written for each root of what is not ready.
	AuditEvents bool
	// AuditBuildDir is the directory to unpack artifacts in, to build what Flux is about to apply; empty to not build. ArtifactHosts are hosts that
	// artifacts are fetched from beside Flux's own controllers.
	AuditBuildDir string
	ArtifactHosts []string

	WebhookHost    string
	WebhookPort    int
	MetricsAddress string // "0" for none
	HealthAddress  string

	ServiceName              string
	DNSNames                 []string
	WebhookConfig, CASecret  string
	TLSCertFile, TLSKeyFile  string
	ClientCAFile             string
	ClientCANames            []string
	CADuration, LeafDuration time.Duration
	ShutdownDelay            time.Duration
}

// policySource keeps the policy in force up to date.
type policySource interface {
	manager.Runnable
	// Get returns nil before the first policy is loaded.
	Get() *policy.Policy
	Ready() error
}

// Server is a webhook server that listens on its ports and is connected to the cluster.
type Server struct {
	options Options
	log     logr.Logger

	registry     *prometheus.Registry
	metrics      *metrics.Metrics
	chartMetrics *metrics.Charts

	rules     *validators.Suite
	mutations *mutators.Set
	policies  policySource
	election  *source.Election
	reporter  *source.Reporter // nil with a policy file
	mutation  *mutationWatch   // nil without webhook configurations

	webhookListener, healthListener, metricsListener net.Listener
	health                                           *healthServer

	charts      *chartsource.Resolver
	config      *rest.Config
	certificate certs.Source
	clients     *certs.Clients // nil to answer every client

	manager    ctrl.Manager
	objects    *lookup.Cluster
	namespaces cache.Informer
	watches    *lookup.Watches
	prefetcher *deferred.Prefetcher
	auditor    *audit.Auditor // nil without --audit
	roots      *audit.Roots   // nil without --audit
	reports    *audit.Reports // nil without --audit-reports
	builder    *audit.Builder // nil without --audit-build-dir

	webhooks *webhook.Server
}

// New prepares a server. An error is a mistake in the options or an environment that cannot be used. The caller calls
// Close.
func New(ctx context.Context, o Options, log logr.Logger) (*Server, error) {
	s := &Server{options: o, log: log, registry: prometheus.NewRegistry()}
	for _, prepare := range []func(context.Context) error{
		s.newPolicies, s.listen, s.newCharts, s.connect, s.newManager, s.newWebhooks,
	} {
		if err := prepare(ctx); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Close releases what New has acquired.
func (s *Server) Close() {
	if s.health != nil {
		s.health.close()
	}
	for _, l := range []net.Listener{s.webhookListener, s.healthListener, s.metricsListener} {
		if l != nil {
			_ = l.Close()
		}
	}
	if s.charts != nil {
		s.charts.Close()
	}
}

// Run serves until ctx ends, and for the shutdown delay after that.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("Starting", "version", s.options.Version,
		"webhooks", s.webhookListener.Addr().String(), "health", s.healthListener.Addr().String())
	if s.clients == nil {
		s.log.Info("Clients are not authenticated: whoever can connect is answered, and no Secret is read for rules; set --client-ca-file")
	}
	ctx, stop := drainFirst(ctx, s.webhooks, s.options.ShutdownDelay, s.log)
	defer stop()
	if err := s.manager.Start(ctx); err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	s.log.Info("Stopped")
	return nil
}

// newPolicies compiles the rules and mutators, and loads the policy file if there is one.
func (s *Server) newPolicies(context.Context) error {
	var err error
	if s.rules, err = validators.NewSuite(allvalidators.Rules()...); err != nil {
		return fmt.Errorf("building the suite of rules: %w", err)
	}
	if s.mutations, err = mutators.NewSet(allmutators.Mutators()...); err != nil {
		return fmt.Errorf("building the set of mutators: %w", err)
	}
	s.metrics = metrics.New(s.registry, evaluatedKinds()...)
	s.chartMetrics = metrics.NewCharts(s.registry)
	s.metrics.Build(s.options.Version)
	for _, r := range s.rules.Rules() {
		s.metrics.Rules(r.Name)
	}
	s.metrics.PolicyInForce(s.policyState)
	if s.options.Policy == "" {
		return nil // connect uses the AdmissionPolicy of the cluster
	}
	s.policies, err = source.NewFile(s.options.Policy, s.compile, s.metrics.PolicyReload, s.log)
	return err
}

func (s *Server) compile(p *v1alpha1.AdmissionPolicy) (*policy.Policy, error) {
	return policy.Compile(p, s.rules, s.mutations, nil)
}

// listen takes the ports before anything else starts.
func (s *Server) listen(ctx context.Context) error {
	o := s.options
	var err error
	address := net.JoinHostPort(o.WebhookHost, strconv.Itoa(o.WebhookPort))
	if s.webhookListener, err = listen(ctx, "--webhook-host and --webhook-port", address); err != nil {
		return err
	}
	if s.healthListener, err = listen(ctx, "--health-probe-bind-address", o.HealthAddress); err != nil {
		return err
	}
	s.health = startHealth(s.healthListener)
	if o.MetricsAddress != "0" {
		s.metricsListener, err = listen(ctx, "--metrics-bind-address", o.MetricsAddress)
	}
	return err
}

func listen(ctx context.Context, flags, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s, choose another address with %s: %w", address, flags, err)
	}
	return l, nil
}

// newCharts creates the resolver of charts. A review must not wait for a chart longer than the API server waits for the
// review.
func (s *Server) newCharts(context.Context) error {
	o := s.options
	if longest := (webhookconfig.TimeoutSeconds - 1) * time.Second; o.ChartWait < 0 || o.ChartWait > longest {
		return fmt.Errorf("--chart-wait %s must be between 0 and %s; the API server waits %d s for a review",
			o.ChartWait, longest, webhookconfig.TimeoutSeconds)
	}
	size, err := resource.ParseQuantity(o.ChartCache)
	if err != nil || size.Value() <= 0 {
		return fmt.Errorf("--chart-cache %s must be a size in bytes such as 256Mi", o.ChartCache)
	}
	s.charts, err = chartsource.New(chartsource.Options{
		Dirs: o.Charts, Wait: o.ChartWait, CacheBytes: size.Value(), CacheDir: o.ChartCacheDir,
		StateDir:         o.StateDir,
		NoCrossNamespace: o.NoCrossNamespaceRefs, SchemaHosts: o.SchemaHosts, AllowLoopback: o.ChartsAllowLocal,
		// One tenant's slow sources leave most of the fetches to others, and end soon.
		MaxFetches: 8, MaxFetchesPerTenant: 3, HeaderTimeout: 5 * time.Second, FetchTimeout: 30 * time.Second,
		Observer: s.chartMetrics, Log: s.log.WithName("charts"),
	})
	if err != nil {
		return fmt.Errorf("--charts, --chart-cache-dir, --state-dir: %w", err)
	}
	return nil
}

// connect connects to the cluster and loads the serving certificate.
func (s *Server) connect(ctx context.Context) error {
	var err error
	if s.config, err = restConfig(ctx, s.options.Kubeconfig, s.log); err != nil {
		return err
	}
	if err := s.newElection(); err != nil {
		return err
	}
	if s.policies == nil {
		c, err := dynamic.NewForConfig(s.config)
		if err != nil {
			return fmt.Errorf("creating a client for the AdmissionPolicy: %w", err)
		}
		if err := s.newClusterPolicy(c); err != nil {
			return err
		}
	}
	if s.certificate, err = s.newCertificate(); err != nil {
		return err
	}
	s.metrics.CertificateExpiry(s.certificate.Expiry)
	if c, ok := s.certificate.(*certs.SelfManaged); ok && s.reporter != nil {
		s.reporter.CA = c.CA
	}
	return s.newClients()
}

// newClients reads the CA of the clients, if there is one.
func (s *Server) newClients() error {
	o := s.options
	if o.ClientCAFile == "" {
		if len(o.ClientCANames) > 0 {
			return errors.New("--client-ca-name needs --client-ca-file")
		}
		return nil
	}
	var err error
	if s.clients, err = certs.NewClients(o.ClientCAFile, o.ClientCANames); err != nil {
		return fmt.Errorf("--client-ca-file: %w", err)
	}
	return nil
}

// newClusterPolicy watches the AdmissionPolicy of the cluster.
func (s *Server) newClusterPolicy(c dynamic.Interface) error {
	mode := v1alpha1.Mode(s.options.DefaultMode)
	if mode != "" && mode != v1alpha1.ModeEnforce && mode != v1alpha1.ModeAuditOnly {
		return fmt.Errorf("--default-mode %s must be %s or %s", mode, v1alpha1.ModeEnforce, v1alpha1.ModeAuditOnly)
	}
	var names []string
	for _, r := range s.rules.Rules() {
		names = append(names, r.Name)
	}
	cluster := source.NewCluster(source.ClusterOptions{
		Client: c, Reloaded: s.metrics.PolicyReload, DefaultMode: mode, Namespace: s.options.Namespace, Rules: names, Log: s.log,
		LimitNew: func(spec map[string]any, known []string) ([]string, error) {
			return policy.LimitNew(spec, known, s.rules.Rules())
		},
		Read: func(spec any, last map[string]any) (policy.Reading, error) {
			return policy.Read(spec, last, s.rules, s.mutations, nil)
		},
	})
	s.policies = cluster
	s.reporter = &source.Reporter{
		Cluster: cluster, Election: s.election, Version: s.options.Version, Log: s.log.WithName("policy"),
	}
	return nil
}

// newElection prepares the election of the replica that audits and reports.
func (s *Server) newElection() error {
	leases, err := coordinationclient.NewForConfig(s.config)
	if err != nil {
		return fmt.Errorf("creating a client for Leases: %w", err)
	}
	identity, err := identity()
	if err != nil {
		return err
	}
	s.election = &source.Election{Leases: leases, Namespace: s.options.Namespace, Identity: identity, Log: s.log.WithName("election")}
	return nil
}

// policyState returns the state of the policy in force.
func (s *Server) policyState() metrics.PolicyState {
	var out metrics.PolicyState
	if s.policies == nil {
		return out
	}
	if c, ok := s.policies.(*source.Cluster); ok {
		f, _ := c.InForce()
		out.Problems, out.LimitedRules = len(f.Problems), len(f.Limited)
	}
	p := s.policies.Get()
	out.AuditOnly = p != nil && p.AuditOnly()
	return out
}

// identity returns a name of this process that is unique in the cluster: that of the Pod and a random suffix, since a
// container may restart in its Pod.
func identity() (string, error) {
	name := os.Getenv("POD_NAME")
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("reading the name of the host: %w", err)
		}
	}
	name = strings.ToLower(name)
	return name[:min(len(name), 200)] + "." + utilrand.String(5), nil
}

func (s *Server) newCertificate() (certs.Source, error) {
	o := s.options
	if (o.TLSCertFile == "") != (o.TLSKeyFile == "") {
		return nil, errors.New(
			"--tls-cert-file and --tls-key-file must be set together, or neither for a self-managed certificate")
	}
	if o.TLSCertFile != "" {
		c, err := certs.NewFiles(o.TLSCertFile, o.TLSKeyFile)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert-file, --tls-key-file: %w", err)
		}
		return c, nil
	}
	service := o.ServiceName + "." + o.Namespace
	c, err := certs.NewSelfManaged(certs.Options{
		Config: s.config, Namespace: o.Namespace, Secret: o.CASecret, WebhookConfig: o.WebhookConfig,
		Names:      append([]string{service + ".svc", service + ".svc.cluster.local", service}, o.DNSNames...),
		CADuration: o.CADuration, LeafDuration: o.LeafDuration, Observe: s.metrics.CABundleWrite,
		Log: s.log.WithName("certs"),
	})
	if err != nil {
		return nil, fmt.Errorf("--ca-duration, --leaf-duration: %w", err)
	}
	return c, nil
}

// newManager creates the manager, its informers, and the lookup that reads them.
func (s *Server) newManager(ctx context.Context) error {
	timeout := shutdownTimeout
	mgr, err := ctrl.NewManager(s.config, ctrl.Options{
		Logger:  s.log,
		Metrics: server.Options{BindAddress: "0"}, // newWebhooks serves them
		Cache: cache.Options{
			// No rule starts a cluster-wide watch unnoticed: only kinds with an informer are read from the cache.
			ReaderFailOnMissingInformer:  true,
			DefaultTransform:             lookup.Strip,
			DefaultUnsafeDisableDeepCopy: new(true), // lookups share objects, and nothing changes them
		},
		GracefulShutdownTimeout: &timeout,
	})
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	s.manager = mgr
	namespaces := &unstructured.Unstructured{}
	namespaces.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"})
	if s.namespaces, err = mgr.GetCache().GetInformer(ctx, namespaces, cache.BlockUntilSynced(false)); err != nil {
		return fmt.Errorf("watching namespaces: %w", err)
	}
	s.objects = lookup.NewCluster(mgr.GetCache(), mgr.GetAPIReader(), mgr.GetRESTMapper(), s.charts)
	// An answer must be worth nothing to a client that is not authenticated, and credentials of the cluster itself are
	// nobody's values.
	s.objects.WithoutSecrets = s.clients == nil
	s.objects.Withheld = []string{metav1.NamespaceSystem, s.options.Namespace}
	if s.options.ChartPrefetch {
		s.prefetcher = &deferred.Prefetcher{Lookup: s.objects, Full: s.charts.Full, Log: s.log.WithName("prefetcher")}
	}
	if err := s.newAudit(); err != nil {
		return err
	}
	if err := s.newMutationWatch(); err != nil {
		return err
	}
	s.watches = lookup.NewWatches(mgr.GetCache(), mgr.GetRESTMapper(), s.informedKinds(), s.changed(), s.log.WithName("watches"))
	s.objects.Watched = s.watches.Synced
	return nil
}

// informedKinds returns the kinds that have an informer, other than Namespaces.
func (s *Server) informedKinds() []schema.GroupKind {
	kinds := watchedKinds()
	if s.auditor != nil {
		for _, gk := range s.auditor.Kinds {
			if !slices.Contains(kinds, gk) && gk != (schema.GroupKind{Kind: "Namespace"}) {
				kinds = append(kinds, gk)
			}
		}
	}
	return kinds
}

// newMutationWatch creates what observes the mutations of the policy.
func (s *Server) newMutationWatch() error {
	if s.options.WebhookConfig == "" {
		return nil
	}
	c, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		return fmt.Errorf("creating a client for the webhook configurations: %w", err)
	}
	s.mutation = &mutationWatch{
		client: c, config: s.options.WebhookConfig, policy: s.policies.Get, lookup: s.objects, withheld: s.objects.Withheld,
		synced: func(gk schema.GroupKind) bool { return s.watches.Synced(gk) }, log: s.log.WithName("mutations"),
	}
	s.metrics.MissedMutations(s.mutation.Missed)
	if s.reporter != nil {
		s.reporter.Mutations = s.mutation.Condition
	}
	return nil
}

// newWebhooks creates the webhooks and adds everything that runs to the manager.
func (s *Server) newWebhooks(context.Context) error {
	reevaluator := &deferred.Reevaluator{
		Policy: func() deferred.Policy {
			if p := s.policies.Get(); p != nil {
				return p
			}
			return nil
		},
		Lookup: s.objects, Observe: s.metrics.DeferredEvaluation, Log: s.log.WithName("reevaluator"),
	}
	inForce := func() webhook.Policy {
		if p := s.policies.Get(); p != nil {
			return p
		}
		return nil
	}
	s.webhooks = webhook.NewServer(
		&webhook.Validator{Policy: inForce, Lookup: s.objects, Metrics: s.metrics, Log: s.log, Deferred: reevaluator.Enqueue},
		&webhook.Mutator{Policy: inForce, Lookup: s.objects, Log: s.log},
		&webhook.PolicyValidator{
			Check: func(data []byte) ([]string, error) { return policy.Check(data, s.rules, s.mutations) }, Log: s.log,
		},
		s.metrics, s.log,
	)
	reevaluator.Reserve = func(bytes int64) deferred.Memory {
		if m := s.webhooks.Defer(bytes); m != nil {
			return m
		}
		return nil
	}
	if s.clients != nil {
		s.webhooks.Authenticate(s.clients)
	}
	webhookServer := s.webhooks.HTTP(s.certificate.GetCertificate)
	webhookServer.ErrorLog = httpErrorLog(s.log)

	// The manager starts HTTP servers first and stops them last, so that open requests have all that they need.
	runnables := []manager.Runnable{
		s.certificate, s.policies, s.watches, reevaluator, executable{log: s.log},
		&manager.Server{
			Name: "webhooks", Server: webhookServer, Listener: s.webhooks.Listener(s.webhookListener, webhookServer),
			ShutdownTimeout: new(shutdownTimeout),
		},
	}
	if s.metricsListener != nil {
		runnables = append(runnables, newHTTPServer("metrics", s.metricsHandler(), s.metricsListener))
	}
	if s.clients != nil {
		runnables = append(runnables, s.clients)
	}
	if s.prefetcher != nil {
		runnables = append(runnables, s.prefetcher)
	}
	if s.reporter != nil {
		runnables = append(runnables, s.reporter)
	}
	if s.reporter != nil || s.auditor != nil {
		runnables = append(runnables, s.election)
	}
	if s.mutation != nil {
		runnables = append(runnables, s.mutation)
	}
	if s.auditor != nil {
		runnables = append(runnables, s.auditor, s.roots)
	}
	if s.builder != nil {
		runnables = append(runnables, s.builder)
	}
	if s.reports != nil {
		runnables = append(runnables, s.reports)
	}
	for _, r := range runnables {
		if err := s.manager.Add(r); err != nil {
			return fmt.Errorf("preparing the manager: %w", err)
		}
	}
	s.health.serve(s.healthHandler())
	return nil
}

func (s *Server) healthHandler() http.Handler {
	checks := map[string]func() error{
		"serving": s.webhooks.Ready, "caches": informersSynced(s.namespaces, s.watches), "policy": s.policies.Ready,
	}
	maps.Copy(checks, s.certificate.Checks())
	mux := http.NewServeMux()
	mux.Handle("/readyz", &readiness{checks: checks, log: s.log})
	mux.HandleFunc("/healthz", liveness(s.webhooks.Live))
	return mux
}

func (s *Server) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{s.registry, crmetrics.Registry},
		promhttp.HandlerOpts{ErrorLog: httpErrorLog(s.log)}))
	return mux
}

// newHTTPServer returns a server without TLS.
func newHTTPServer(name string, h http.Handler, l net.Listener) *manager.Server {
	return &manager.Server{
		Name: name, Listener: l, ShutdownTimeout: new(shutdownTimeout),
		Server: &http.Server{
			Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
			IdleTimeout: time.Minute,
		},
	}
}

// drainFirst returns a context that ends after ctx and the delay. In between, the webhooks are not ready but serve, so
// that no new request arrives when they stop. The function ends the context at once.
func drainFirst(
	ctx context.Context, webhooks *webhook.Server, delay time.Duration, log logr.Logger,
) (context.Context, func()) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer cancel()
		select {
		case <-ctx.Done():
		case <-out.Done():
			return
		}
		webhooks.Drain()
		log.Info("Shutting down", "delay", delay.String())
		select {
		case <-time.After(delay):
		case <-out.Done():
		}
	}()
	return out, cancel
}

// evaluatedKinds returns the kinds that rules and mutators evaluate at admission.
func evaluatedKinds() []schema.GroupKind {
	var out []schema.GroupKind
	for _, r := range allvalidators.Rules() {
		out = append(out, r.KindsAt(validators.StageAdmission)...)
	}
	for _, m := range allmutators.Mutators() {
		out = append(out, m.Kinds...)
	}
	return out
}

// watchedKinds returns the kinds that are read from informers: those that rules, mutators and the resolver of charts
// look up, except for the core group. Secrets and ConfigMaps are not kept in memory, and Namespaces have an informer of
// their own.
func watchedKinds() []schema.GroupKind {
	reads := []schema.GroupKind{
		flux.HelmRelease, flux.Kustomization, flux.HelmRepository, flux.HelmChart, flux.OCIRepository, flux.GitRepository,
		flux.Bucket,
	}
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

// httpErrorLog returns a logger for net/http, which logs mostly failed TLS handshakes: they have the debug level.
func httpErrorLog(log logr.Logger) *stdlog.Logger { return stdlog.New(debugWriter{log}, "", 0) }

type debugWriter struct{ log logr.Logger }

func (w debugWriter) Write(p []byte) (int, error) {
	w.log.V(1).Info("HTTP server error", "message", string(p))
	return len(p), nil
}
