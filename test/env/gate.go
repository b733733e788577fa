// Package env runs the product's own binary against a bench control plane, as its manifests would have it run: with the permissions of its
// service account, and with the webhook configurations that ship.
package env

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
)

// Namespace is where the manifests install the gate.
const Namespace = "flux-admission-system"

// serviceAccount is the user that the manifests give permissions to.
const serviceAccount = "system:serviceaccount:" + Namespace + ":flux-admission"

// Overlay is the kustomization that Install applies.
const Overlay = "manifests/overlays/self-managed"

// Deadlines for a machine that is busy with other tests.
const (
	buildTimeout = 15 * time.Minute
	readyTimeout = 90 * time.Second
	stopGrace    = 30 * time.Second
	pollEvery    = 50 * time.Millisecond
)

// Root returns the directory of the product's go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "manifests", "base")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside the project: no manifests/base in this directory or above it")
		}
		dir = parent
	}
}

// Build builds the binary below dir and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	path := filepath.Join(dir, "flux-admission")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/flux-admission")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building flux-admission: %w\n%s", err, out)
	}
	return path, nil
}

// Install applies the project's manifests with strict validation. There is no network of pods here, so each webhook gets the URL of
// address (host:port) in place of its Service; everything else is as it ships.
func Install(ctx context.Context, cp *controlplane.ControlPlane, address string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	return cp.InstallManifests(ctx, filepath.Join(root, Overlay), func(o *unstructured.Unstructured) {
		if strings.HasSuffix(o.GetKind(), "WebhookConfiguration") {
			useURL(o, address)
		}
	})
}

func useURL(o *unstructured.Unstructured, address string) {
	webhooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	for _, w := range webhooks {
		hook, _ := w.(map[string]any)
		config, _ := hook["clientConfig"].(map[string]any)
		service, _ := config["service"].(map[string]any)
		path, _ := service["path"].(string)
		delete(config, "service")
		config["url"] = "https://" + address + path
	}
	_ = unstructured.SetNestedSlice(o.Object, webhooks, "webhooks")
}

// FreeAddress returns a loopback address that nothing listened on a moment ago.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// Options say how the gate is started.
type Options struct {
	// Binary is what Build returned.
	Binary string
	// Name tells several gates on one control plane apart; the default is "gate".
	Name string
	// Address is where the webhooks are served; a free one when empty.
	Address string
	// Args are added to the arguments of serve.
	Args []string
}

// Deploy builds the gate, installs its manifests and starts it, as Start does, with the arguments added to serve's.
func Deploy(ctx context.Context, cp *controlplane.ControlPlane, args ...string) (*Gate, error) {
	binary, err := Build(ctx, cp.Dir())
	if err != nil {
		return nil, err
	}
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	if err := Install(ctx, cp, address); err != nil {
		return nil, err
	}
	return Start(ctx, cp, Options{Binary: binary, Address: address, Args: args})
}

// Gate is a running gate.
type Gate struct {
	// Address serves the webhooks.
	Address string
	plane   *controlplane.ControlPlane
	options Options
	metrics string
	health  string
	process *controlplane.Process
}

// Start starts the gate and waits until it says that it is ready. It ends with Stop, at the latest when the control plane stops.
func Start(ctx context.Context, cp *controlplane.ControlPlane, o Options) (*Gate, error) {
	if o.Name == "" {
		o.Name = "gate"
	}
	dir, err := os.MkdirTemp(cp.Dir(), o.Name+"-")
	if err != nil {
		return nil, err
	}
	g := &Gate{Address: o.Address, plane: cp, options: o}
	for _, a := range []*string{&g.Address, &g.metrics, &g.health} {
		if *a == "" {
			if *a, err = FreeAddress(); err != nil {
				return nil, err
			}
		}
	}
	kubeconfig, err := writeKubeconfig(cp, dir)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(g.Address)
	if err != nil {
		return nil, err
	}
	args := []string{
		"serve", "--kubeconfig=" + kubeconfig, "--namespace=" + Namespace,
		"--webhook-host=" + host, "--webhook-port=" + port, "--dns-name=" + host,
		"--metrics-bind-address=" + g.metrics, "--health-probe-bind-address=" + g.health, "--shutdown-delay=0s",
	}
	g.process, err = controlplane.StartProcess(controlplane.Command{
		Name: o.Name, Path: o.Binary, Args: slices.Concat(args, o.Args), Log: filepath.Join(dir, "log"), Dir: dir, Leash: cp.Assets().Leash,
	})
	if err != nil {
		return nil, err
	}
	cp.Cleanup(g.Stop)
	if err := g.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, g.process.Kill())
	}
	return g, nil
}

func writeKubeconfig(cp *controlplane.ControlPlane, dir string) (string, error) {
	config, err := cp.User(serviceAccount, "system:serviceaccounts", "system:serviceaccounts:"+Namespace, "system:authenticated")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(kubeconfigOf(config), path); err != nil {
		return "", fmt.Errorf("writing the gate's kubeconfig: %w", err)
	}
	return path, nil
}

func kubeconfigOf(c *rest.Config) clientcmdapi.Config {
	return clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"bench": {Server: c.Host, CertificateAuthorityData: c.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"gate": {ClientCertificateData: c.CertData, ClientKeyData: c.KeyData}},
		Contexts:       map[string]*clientcmdapi.Context{"bench": {Cluster: "bench", AuthInfo: "gate"}},
		CurrentContext: "bench",
	}
}

// WaitReady waits until /readyz answers 200.
func (g *Gate) WaitReady(ctx context.Context) error {
	var last string
	err := wait.PollUntilContextTimeout(ctx, pollEvery, readyTimeout, true, func(ctx context.Context) (bool, error) {
		select {
		case <-g.process.Ended():
			return false, g.process.Failure()
		default:
		}
		code, body, err := get(ctx, "http://"+g.health+"/readyz")
		last = fmt.Sprintf("%d %s %v", code, body, err)
		return code == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the gate to be ready: %w (last answer of /readyz: %s)\n%s", err, last, g.LogTail())
	}
	return nil
}

func get(ctx context.Context, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		// The gate's certificate is for the API server to verify; here only the answer counts.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, //nolint:gosec // see above
	}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	return resp.StatusCode, string(body), err
}

// Stop ends the gate as Kubernetes does, by SIGTERM.
func (g *Gate) Stop() error { return g.process.Stop(stopGrace) }

// Kill ends the gate as a crash of its node does.
func (g *Gate) Kill() error { return g.process.Kill() }

// Restart starts the gate again after Stop or Kill, at the same address.
func (g *Gate) Restart(ctx context.Context) (*Gate, error) {
	o := g.options
	o.Address = g.Address
	return Start(ctx, g.plane, o)
}

// Process is the gate's process.
func (g *Gate) Process() *controlplane.Process { return g.process }

// Health is the address of /healthz and /readyz.
func (g *Gate) Health() string { return g.health }

// Log returns everything that the gate has written.
func (g *Gate) Log() string {
	data, err := os.ReadFile(g.process.Log())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// LogTail returns the last lines that the gate has written.
func (g *Gate) LogTail() string {
	lines := strings.Split(strings.TrimSpace(g.Log()), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// Metric returns the sum of a counter or gauge over all series that have the given labels, as name=value. A histogram counts its observations.
func (g *Gate) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	code, body, err := get(ctx, "http://"+g.metrics+"/metrics")
	if err != nil || code != http.StatusOK {
		return 0, fmt.Errorf("reading the gate's metrics: status %d: %w", code, err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("reading the gate's metrics: %w", err)
	}
	sum := 0.0
	for _, m := range families[name].GetMetric() {
		if !hasLabels(m, labels) {
			continue
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sum, nil
}

func hasLabels(m *dto.Metric, labels []string) bool {
	for _, want := range labels {
		if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName()+"="+l.GetValue() == want }) {
			return false
		}
	}
	return true
}

var policyGVK = schema.GroupVersionKind{Group: "flux-admission.dev", Version: "v1alpha1", Kind: "AdmissionPolicy"}

// WaitPolicy waits until the newest generation of the AdmissionPolicy is the one in force, and says so in its status.
func (g *Gate) WaitPolicy(ctx context.Context, c client.Reader) error {
	var last any
	err := wait.PollUntilContextTimeout(ctx, pollEvery, readyTimeout, true, func(ctx context.Context) (bool, error) {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(policyGVK)
		if err := c.Get(ctx, client.ObjectKey{Name: "default"}, o); err != nil {
			return false, err
		}
		last = o.Object["status"]
		conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
		for _, item := range conditions {
			condition, _ := item.(map[string]any)
			generation, _ := condition["observedGeneration"].(int64)
			if condition["type"] == "Accepted" && condition["status"] == "True" && generation == o.GetGeneration() {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the policy to be in force: %w (status: %v)\n%s", err, last, g.LogTail())
	}
	return nil
}
