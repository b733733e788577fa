// Package env starts what the end-to-end tests need: a control plane, the webhook servers with the permissions and the
// webhook configurations of the manifests, a Helm repository and a Git server.
package env

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/chartrepo"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/flux"
	"github.com/flux-admission/flux-admission/test/gitserver"
	"github.com/flux-admission/flux-admission/test/privileges"
)

// startTimeout bounds Start, which may have to build the programs on a busy machine.
const startTimeout = 20 * time.Minute

// AirflowChart is a chart with a values schema, for Options.Charts.
const AirflowChart = "test/demo/charts/airflow"

// MutatingWebhook is the directory with the mutating webhook, for Options.Resources.
const MutatingWebhook = "inject-target-namespace"

// Options say what Start starts.
type Options struct {
	// ControlPlane configures etcd and kube-apiserver, and the CRDs that are there before the webhook servers start.
	ControlPlane controlplane.Options
	// Flux runs source-controller and kustomize-controller, and Helm helm-controller as well.
	Flux, Helm bool
	// Replicas is the number of webhook servers; the default is 1. Several are behind a load balancer, as behind a
	// Service.
	Replicas int
	// Components are installed with the overlay, by their directories' names in manifests/components.
	Components []string
	// CertManager installs the component cert-manager and runs its controllers: the webhook servers have the certificate
	// that they issue, MountDelay after it is in its Secret.
	CertManager bool
	// MountDelay is the time that a kubelet takes to bring a changed Secret into a Pod.
	MountDelay time.Duration
	// Resources are installed with the overlay, by their directories' names in manifests.
	Resources []string
	// Args are added to the arguments of serve.
	Args []string
	// Shipped runs the webhook servers with the arguments, the environment and the hard limit of memory of the Deployment.
	Shipped bool
	// Proxy has the webhook servers connect to the API server through Env.Proxy.
	Proxy bool
	// Binary is run in place of the product's, which is built when it is empty.
	Binary string
	// Versions are the versions of the builds that the replicas run, one per replica; without them all run one build.
	Versions []string
	// FailurePolicy replaces that of the manifests in every webhook. Fail shows a call that fails as a refused write.
	FailurePolicy admissionregv1.FailurePolicyType
	// Policy is the AdmissionPolicy in force, as YAML; the default policy when empty.
	Policy string
	// Charts are directories below the project's root; Env.Charts serves them as a Helm repository.
	Charts []string
	// Git starts Env.Git.
	Git bool
}

// Env is a running environment.
type Env struct {
	ControlPlane *controlplane.ControlPlane
	// Client has all permissions.
	Client client.Client
	// Webhooks are the webhook servers, one per replica.
	Webhooks []*Webhook
	// Address is what the API server calls, as host:port: the load balancer's, or that of the only webhook server.
	Address string
	// Charts is the Helm repository; nil without Options.Charts.
	Charts *httptest.Server
	// ChartDir has the files that Charts serves: index.yaml and the chart archives.
	ChartDir string
	// Git is the Git server; nil without Options.Git.
	Git *gitserver.Server
	// Proxy is between the webhook servers and the API server; nil without Options.Proxy.
	Proxy *Proxy

	// CertManager are the controllers of cert-manager; nil without Options.CertManager.
	CertManager *controlplane.Process

	balancer      *loadBalancer
	failurePolicy admissionregv1.FailurePolicyType
}

// Main runs a package's tests in one environment and returns the exit code. setUp receives it before the first test:
//
//	var shared *env.Env
//
//	func TestMain(m *testing.M) {
//		os.Exit(env.Main(m, env.Options{…}, func(_ context.Context, e *env.Env) error {
//			shared = e
//			return nil
//		}))
//	}
func Main(m *testing.M, o Options, setUp func(context.Context, *Env) error) int {
	o.ControlPlane.AuditUser = cmp.Or(o.ControlPlane.AuditUser, auditUser())
	return controlplane.Main(m, o.ControlPlane, func(cp *controlplane.ControlPlane) error {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		e, err := start(ctx, cp, o)
		if err != nil {
			return err
		}
		return setUp(ctx, e)
	})
}

// Start starts an environment and waits until it is ready. The caller ends it with Stop.
func Start(ctx context.Context, o Options) (*Env, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	o.ControlPlane.AuditUser = cmp.Or(o.ControlPlane.AuditUser, auditUser())
	cp, err := controlplane.Start(ctx, o.ControlPlane)
	if err != nil {
		return nil, err
	}
	e, err := start(ctx, cp, o)
	if err != nil {
		return nil, errors.Join(err, cp.Stop())
	}
	return e, nil
}

// Stop ends everything that Start has started.
func (e *Env) Stop() error { return e.ControlPlane.Stop() }

func start(ctx context.Context, cp *controlplane.ControlPlane, o Options) (*Env, error) {
	e := &Env{ControlPlane: cp}
	if dir := os.Getenv(privileges.DirectoryVariable); dir != "" {
		// The first to be registered is the last to be called: the webhook servers have ended then.
		cp.Cleanup(func() error { return recordCalls(cp, dir) })
	}
	var err error
	if e.Client, err = client.New(cp.Config(), client.Options{Scheme: scheme.Scheme}); err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	if o.Flux {
		controllers, err := flux.Start(ctx, flux.Options{Plane: cp, Helm: o.Helm, Progress: os.Stderr})
		if err != nil {
			return nil, err
		}
		cp.Cleanup(controllers.Stop)
	}
	if err := e.startServers(ctx, o); err != nil {
		return nil, err
	}
	if err := e.createNamespace(ctx, "flux-system"); err != nil {
		return nil, err
	}
	if err := e.startWebhooks(ctx, o); err != nil {
		return nil, err
	}
	if o.Policy != "" {
		if err := e.SetPolicy(ctx, o.Policy); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// auditUser returns the user whose calls the API server records: the webhook server, if the calls are wanted.
func auditUser() string {
	if os.Getenv(privileges.DirectoryVariable) == "" {
		return ""
	}
	return ServiceAccount
}

// recordCalls writes the calls of the webhook servers to a directory.
func recordCalls(cp *controlplane.ControlPlane, dir string) error {
	events, err := cp.CallsOf(ServiceAccount)
	if err != nil {
		return err
	}
	return privileges.Write(dir, privileges.Calls(events, ServiceAccount, Namespace))
}

// startServers starts the Helm repository and the Git server.
func (e *Env) startServers(ctx context.Context, o Options) error {
	if len(o.Charts) > 0 {
		root, err := Root()
		if err != nil {
			return err
		}
		dirs := make([]string, 0, len(o.Charts))
		for _, c := range o.Charts {
			dirs = append(dirs, filepath.Join(root, filepath.FromSlash(c)))
		}
		if e.ChartDir, err = e.mkdir("charts"); err != nil {
			return err
		}
		if e.Charts, err = chartrepo.Serve(e.ChartDir, dirs...); err != nil {
			return err
		}
		e.ControlPlane.Cleanup(func() error { e.Charts.Close(); return nil })
	}
	if o.Git {
		dir, err := e.mkdir("git")
		if err != nil {
			return err
		}
		// The server outlives ctx, which is for the start.
		if e.Git, err = gitserver.Start(context.WithoutCancel(ctx), dir); err != nil {
			return err
		}
		e.ControlPlane.Cleanup(e.Git.Close)
	}
	return nil
}

func (e *Env) mkdir(name string) (string, error) {
	dir := filepath.Join(e.ControlPlane.Dir(), name)
	return dir, os.Mkdir(dir, 0o750)
}

// startWebhooks builds the binary, installs the manifests and starts the replicas.
func (e *Env) startWebhooks(ctx context.Context, o Options) error {
	binary := o.Binary
	if binary == "" && len(o.Versions) == 0 {
		var err error
		if binary, err = build(ctx, e.ControlPlane.Dir(), ""); err != nil {
			return err
		}
	}
	var shipped *container
	if o.Shipped {
		var err error
		if shipped, err = readContainer(); err != nil {
			return err
		}
		if o.Binary != "" {
			shipped.flags = nil // another version may not have them
		}
	}
	if o.Proxy {
		var err error
		if e.Proxy, err = newProxy(e.ControlPlane.Config().Host); err != nil {
			return err
		}
		e.ControlPlane.Cleanup(e.Proxy.close)
	}
	e.failurePolicy = o.FailurePolicy
	if o.CertManager {
		if err := e.startCertManager(ctx, &o); err != nil {
			return err
		}
	}
	replicas := max(o.Replicas, len(o.Versions), 1)
	for i := range replicas {
		if i < len(o.Versions) {
			var err error
			if binary, err = build(ctx, e.ControlPlane.Dir(), o.Versions[i]); err != nil {
				return err
			}
		}
		w, err := newWebhook(e.ControlPlane, fmt.Sprintf("webhook-%d", i), binary, o.Args, shipped)
		if err != nil {
			return err
		}
		w.proxy = e.Proxy
		e.Webhooks = append(e.Webhooks, w)
	}
	e.Address = e.Webhooks[0].Address
	if replicas > 1 {
		var err error
		if e.balancer, err = newLoadBalancer(e.Webhooks); err != nil {
			return err
		}
		e.ControlPlane.Cleanup(e.balancer.close)
		e.Address = e.balancer.address()
	}
	if err := e.install(ctx, o); err != nil {
		return err
	}
	if o.CertManager {
		if err := e.mountCertificate(ctx, o.MountDelay); err != nil {
			return err
		}
	}
	for _, w := range e.Webhooks {
		if err := w.start(ctx, nil); err != nil {
			return err
		}
	}
	return e.WaitBalanced(ctx)
}

// WaitBalanced waits until the load balancer sends requests to every webhook server; with one replica it returns at
// once.
func (e *Env) WaitBalanced(ctx context.Context) error {
	if e.balancer == nil {
		return nil
	}
	return e.balancer.wait(ctx)
}

// Webhook is the first webhook server: the only one unless Options.Replicas is greater than 1.
func (e *Env) Webhook() *Webhook { return e.Webhooks[0] }

// Namespace creates a namespace for one test and returns its name, which begins with the prefix.
func (e *Env) Namespace(t testing.TB, prefix string) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix}}
	if err := e.Client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

// Run runs the product's binary as a user of the cluster, and returns what it wrote and its exit code.
func (e *Env) Run(ctx context.Context, user string, args ...string) (output string, code int, err error) {
	dir, err := os.MkdirTemp(e.ControlPlane.Dir(), "user-")
	if err != nil {
		return "", 0, fmt.Errorf("running flux-admission: %w", err)
	}
	kubeconfig, err := writeKubeconfig(e.ControlPlane, dir, "", user, "system:authenticated")
	if err != nil {
		return "", 0, err
	}
	cmd := exec.CommandContext(ctx, e.Webhook().binary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return string(out), exit.ExitCode(), nil
	}
	return string(out), 0, err
}

func (e *Env) createNamespace(ctx context.Context, name string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := e.Client.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating namespace %s: %w", name, err)
	}
	return nil
}

// Apply applies a manifest with `kubectl apply --server-side`.
func (e *Env) Apply(ctx context.Context, manifest string) error {
	_, _, err := e.ControlPlane.Kubectl(
		ctx, strings.NewReader(manifest), "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

// SetPolicy applies the AdmissionPolicy and waits until it is in force.
func (e *Env) SetPolicy(ctx context.Context, manifest string) error {
	if err := e.Apply(ctx, manifest); err != nil {
		return err
	}
	return e.Webhook().WaitPolicy(ctx, e.Client)
}

// Metric returns the sum of a metric of all webhook servers, as Webhook.Metric does for one.
func (e *Env) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	sum := 0.0
	for _, w := range e.Webhooks {
		n, err := w.Metric(ctx, name, labels...)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// AuditAnnotations returns the audit annotations of the last write of an object, by name without the webhook's name
// before it. It needs controlplane.Options.Audit.
func (e *Env) AuditAnnotations(resource, namespace, name string) (map[string]string, error) {
	events, err := e.ControlPlane.AuditEvents()
	if err != nil {
		return nil, err
	}
	for _, event := range slices.Backward(events) {
		ref := event.ObjectRef
		if ref == nil || ref.Resource != resource || ref.Namespace != namespace || ref.Name != name {
			continue
		}
		out := map[string]string{}
		for key, value := range event.Annotations {
			if prefix, short, ok := strings.Cut(key, "/"); ok && strings.HasSuffix(prefix, ".flux-admission.dev") {
				out[short] = value
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("the audit log has no write of %s %s/%s", resource, namespace, name)
}

// PolicyStatusWrites returns how often the status of the AdmissionPolicy was written, by whomever. It needs
// controlplane.Options.Audit.
func (e *Env) PolicyStatusWrites() (int, error) {
	events, err := e.ControlPlane.AuditEvents()
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range events {
		if ref := events[i].ObjectRef; ref != nil && ref.Resource == "admissionpolicies" && ref.Subresource == "status" {
			n++
		}
	}
	return n, nil
}
