package env

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
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

// Namespace is where the manifests install the webhook server.
const Namespace = "flux-admission-system"

// ServiceAccount is the user to whom the manifests grant permissions.
const ServiceAccount = "system:serviceaccount:" + Namespace + ":flux-admission"

// ServiceAccountGroups returns the groups of ServiceAccount.
func ServiceAccountGroups() []string {
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + Namespace, "system:authenticated"}
}

// Deadlines for a machine that is busy with other tests.
const (
	readyTimeout = 90 * time.Second
	stopGrace    = 30 * time.Second
	pollEvery    = 50 * time.Millisecond
)

// Webhook is a webhook server: a process of the product's binary, with the permissions of its service account.
type Webhook struct {
	// Address serves the webhooks, as host:port.
	Address string
	// Health serves /healthz and /readyz, as host:port.
	Health string

	name, binary, metrics string
	args                  []string
	plane                 *controlplane.ControlPlane
	process               *controlplane.Process
	shipped               *container // nil for the defaults of serve
	memory                *memoryLimit
	proxy                 *Proxy
}

func newWebhook(cp *controlplane.ControlPlane, name, binary string, args []string, shipped *container) (*Webhook, error) {
	w := &Webhook{name: name, binary: binary, args: args, shipped: shipped, plane: cp}
	if shipped != nil {
		var err error
		if w.memory, err = newMemoryLimit(shipped.memory); err != nil {
			return nil, err
		}
		cp.Cleanup(w.memory.remove)
	}
	for _, a := range []*string{&w.Address, &w.Health, &w.metrics} {
		var err error
		if *a, err = controlplane.FreeAddress(); err != nil {
			return nil, err
		}
	}
	cp.Cleanup(w.Stop)
	return w, nil
}

// start starts the process with the arguments added to its own, and waits until it is ready.
func (w *Webhook) start(ctx context.Context, args []string) error {
	dir, err := os.MkdirTemp(w.plane.Dir(), w.name+"-")
	if err != nil {
		return err
	}
	address := ""
	if w.proxy != nil {
		address = w.proxy.Address()
	}
	kubeconfig, err := writeKubeconfig(w.plane, dir, address, ServiceAccount, ServiceAccountGroups()...)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(w.Address)
	if err != nil {
		return err
	}
	flags := []string{
		"serve", "--kubeconfig=" + kubeconfig, "--namespace=" + Namespace,
		"--webhook-host=" + host, "--webhook-port=" + port, "--dns-name=" + host,
		"--metrics-bind-address=" + w.metrics, "--health-probe-bind-address=" + w.Health, "--shutdown-delay=0s",
	}
	command := controlplane.Command{
		Name: w.name, Path: w.binary, Args: slices.Concat(flags, w.args, args), Log: filepath.Join(dir, "log"), Dir: dir,
		Supervisor: w.plane.Assets().Supervisor,
	}
	if w.shipped != nil {
		if err := w.asShipped(&command); err != nil {
			return err
		}
	}
	if w.process, err = controlplane.StartProcess(command); err != nil {
		return err
	}
	if w.memory != nil {
		w.memory.watch(w.process)
	}
	if err := w.WaitReady(ctx); err != nil {
		return errors.Join(err, w.process.Kill())
	}
	return nil
}

// Restart stops the process if it runs, starts it again at the same addresses, with the arguments added to those of
// Options, and waits until it is ready. Log begins anew.
func (w *Webhook) Restart(ctx context.Context, args ...string) error {
	if err := w.Stop(); err != nil {
		return err
	}
	return w.start(ctx, args)
}

// writeKubeconfig writes the configuration of a user. The address replaces that of the API server; it may be empty.
func writeKubeconfig(cp *controlplane.ControlPlane, dir, address, user string, groups ...string) (string, error) {
	config, err := cp.User(user, groups...)
	if err != nil {
		return "", err
	}
	if address != "" {
		config.Host = "https://" + address
	}
	path := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(kubeconfigOf(config), path); err != nil {
		return "", fmt.Errorf("writing the kubeconfig of %s: %w", user, err)
	}
	return path, nil
}

func kubeconfigOf(c *rest.Config) clientcmdapi.Config {
	return clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"test": {Server: c.Host, CertificateAuthorityData: c.CAData}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{
			"flux-admission": {ClientCertificateData: c.CertData, ClientKeyData: c.KeyData},
		},
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "flux-admission"}},
		CurrentContext: "test",
	}
}

// WaitReady waits until /readyz answers 200.
func (w *Webhook) WaitReady(ctx context.Context) error {
	var last string
	err := wait.PollUntilContextTimeout(ctx, pollEvery, readyTimeout, true, func(ctx context.Context) (bool, error) {
		select {
		case <-w.process.Ended():
			return false, w.process.Failure()
		default:
		}
		code, body, err := get(ctx, "http://"+w.Health+"/readyz")
		last = fmt.Sprintf("%d %s %v", code, body, err)
		return code == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the webhook server to be ready: %w (last response of /readyz: %s)\n%s",
			err, last, w.LogTail())
	}
	return nil
}

func get(ctx context.Context, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		// The certificate is for the API server to verify; here only the response counts.
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

// asShipped gives a command the arguments, the environment and the limit of memory of the Deployment.
func (w *Webhook) asShipped(c *controlplane.Command) error {
	state := filepath.Join(w.plane.Dir(), w.name+"-state") // outlives the process, as an emptyDir does
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	c.Args = append(c.Args, w.shipped.args(state)...)
	c.Env = w.shipped.env
	w.memory.enter(c)
	return nil
}

// Certificate returns the certificate that it serves.
func (w *Webhook) Certificate(ctx context.Context) (*x509.Certificate, error) {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // the certificate is what is looked at
	conn, err := d.DialContext(ctx, "tcp", w.Address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	secure, ok := conn.(*tls.Conn)
	if !ok || len(secure.ConnectionState().PeerCertificates) == 0 {
		return nil, errors.New("no certificate is served")
	}
	return secure.ConnectionState().PeerCertificates[0], nil
}

// Stop ends the process as Kubernetes does, with SIGTERM. It is no error if the process has ended.
func (w *Webhook) Stop() error {
	if w.process == nil {
		return nil // it never started
	}
	return w.process.Stop(stopGrace)
}

// Kill ends the process as a crash of its node does.
func (w *Webhook) Kill() error { return w.process.Kill() }

// Process is the process; Restart begins a new one.
func (w *Webhook) Process() *controlplane.Process { return w.process }

// Log returns everything that the process has written since its last start.
func (w *Webhook) Log() string {
	data, err := os.ReadFile(w.process.Log())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// LogTail returns the last lines of Log.
func (w *Webhook) LogTail() string {
	lines := strings.Split(strings.TrimSpace(w.Log()), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// Metric returns the sum of a counter or gauge over all series that have the given labels, each as name=value. For a
// histogram it is the number of observations.
func (w *Webhook) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	code, body, err := get(ctx, "http://"+w.metrics+"/metrics")
	if err != nil || code != http.StatusOK {
		return 0, fmt.Errorf("reading the metrics: status %d: %w", code, err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("reading the metrics: %w", err)
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

// WaitPolicy waits until the status of the AdmissionPolicy reports that its newest generation is in force in every
// replica.
func (w *Webhook) WaitPolicy(ctx context.Context, c client.Reader) error {
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
			if condition["type"] == "Ready" && condition["status"] == "True" && generation == o.GetGeneration() {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the policy to be in force: %w (status: %v)\n%s", err, last, w.LogTail())
	}
	return nil
}
