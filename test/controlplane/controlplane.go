package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/test/controlplane/assets"
)

// Deadlines. They bound a machine that is busy with other tests; a quiet one
// starts a control plane in a few seconds.
const (
	componentTimeout = time.Minute
	crdTimeout       = 2 * time.Minute
	kubectlTimeout   = 2 * time.Minute
	pollEvery        = 100 * time.Millisecond
)

// startAttempts is how often Start tries: a port that was free may be taken
// by the time the server listens.
const startAttempts = 3

// Options say what Start starts.
type Options struct {
	// Assets are the programs; zero means to build them.
	Assets assets.ControlPlane
	// APIServerArgs sets flags of kube-apiserver by name, without dashes.
	APIServerArgs map[string][]string
	// Audit has the API server record every write, for AuditEvents.
	Audit bool
	// AuditUser has the API server record every call of this user, for CallsOf.
	AuditUser string
	// CRDs are files and directories with CRDs to install.
	CRDs []string
	// CRDSets are installed as well.
	CRDSets []assets.CRDSet
	// Progress is told what is built; nil is silent.
	Progress io.Writer
}

// DefaultCRDs are the kinds that the product has rules for, and Flux's sources.
func DefaultCRDs() []assets.CRDSet { return assets.DefaultCRDs() }

// ControlPlane is a running etcd and kube-apiserver.
type ControlPlane struct {
	assets     assets.ControlPlane
	dir        string
	plane      *envtest.ControlPlane
	config     *rest.Config
	kubeconfig string
	audit      string // path of the audit log, empty if there is none
	stop       func() error

	mu       sync.Mutex
	cleanups []func() error
}

// Start builds what has to be built, starts a control plane, installs the CRDs
// and waits until they are served. The caller ends it with Stop. When Start
// returns an error nothing it started is left.
func Start(ctx context.Context, o Options) (*ControlPlane, error) {
	if o.Assets == (assets.ControlPlane{}) {
		built, err := assets.BuildControlPlane(ctx, o.Progress)
		if err != nil {
			return nil, err
		}
		o.Assets = built
	}
	if len(o.CRDSets) > 0 {
		dirs, err := assets.CRDs(ctx, o.CRDSets...)
		if err != nil {
			return nil, err
		}
		o.CRDs = append(slices.Clone(o.CRDs), dirs...)
	}
	var errs []error
	for attempt := 1; attempt <= startAttempts && ctx.Err() == nil; attempt++ {
		cp, err := start(ctx, o)
		if err == nil {
			return cp, nil
		}
		errs = append(errs, fmt.Errorf("starting the control plane, attempt %d of %d: %w", attempt, startAttempts, err))
	}
	if ctx.Err() != nil {
		errs = append(errs, fmt.Errorf("starting the control plane: %w", context.Cause(ctx)))
	}
	return nil, errors.Join(errs...)
}

func start(ctx context.Context, o Options) (_ *ControlPlane, err error) {
	dir, err := os.MkdirTemp("", "flux-admission-testenv-")
	if err != nil {
		return nil, err
	}
	cp := &ControlPlane{assets: o.Assets, dir: dir, plane: &envtest.ControlPlane{}, kubeconfig: filepath.Join(dir, "kubeconfig")}
	var logs []io.Closer
	cp.stop = sync.OnceValue(func() error {
		errs := append(cp.cleanUp(), cp.plane.Stop())
		for _, log := range logs {
			errs = append(errs, log.Close())
		}
		if err := errors.Join(append(errs, os.RemoveAll(dir))...); err != nil {
			return fmt.Errorf("stopping the control plane: %w", err)
		}
		return nil
	})
	defer func() {
		if err != nil {
			err = errors.Join(err, cp.stop())
		}
	}()

	openLog := func(name string) (*os.File, error) {
		log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err == nil {
			logs = append(logs, log)
		}
		return log, err
	}
	if err := cp.prepareEtcd(openLog); err != nil {
		return nil, err
	}
	if err := cp.prepareAPIServer(openLog, o); err != nil {
		return nil, err
	}
	if err := cp.plane.Start(); err != nil {
		return nil, fmt.Errorf("%w\nThe end of etcd's log:\n%s\nThe end of kube-apiserver's log:\n%s",
			err, lastLines(filepath.Join(dir, "etcd.log")), lastLines(filepath.Join(dir, "kube-apiserver.log")))
	}
	if err := cp.connect(ctx); err != nil {
		return nil, err
	}
	return cp, cp.InstallCRDs(ctx, o.CRDs...)
}

func (cp *ControlPlane) prepareEtcd(openLog func(string) (*os.File, error)) error {
	path, err := supervised(cp.assets.Supervisor, cp.dir, "etcd", cp.assets.Etcd, cp.dir)
	if err != nil {
		return err
	}
	log, err := openLog("etcd")
	if err != nil {
		return err
	}
	data := filepath.Join(cp.dir, "etcd-data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	cp.plane.Etcd = &envtest.Etcd{Path: path, DataDir: data, Out: log, Err: log, StartTimeout: componentTimeout, StopTimeout: componentTimeout}
	return nil
}

// auditPolicy returns a policy that records who wrote what, with the audit
// annotations of webhooks, and what a user read; never an object, which may be
// a secret.
func auditPolicy(o Options) ([]byte, error) {
	policy := auditv1.Policy{
		TypeMeta:   metav1.TypeMeta{APIVersion: auditv1.SchemeGroupVersion.String(), Kind: "Policy"},
		OmitStages: []auditv1.Stage{auditv1.StageRequestReceived},
	}
	if o.AuditUser != "" {
		policy.Rules = append(policy.Rules, auditv1.PolicyRule{Level: auditv1.LevelMetadata, Users: []string{o.AuditUser}})
	}
	if o.Audit {
		policy.Rules = append(policy.Rules, auditv1.PolicyRule{Level: auditv1.LevelMetadata, Verbs: writes})
	}
	policy.Rules = append(policy.Rules, auditv1.PolicyRule{Level: auditv1.LevelNone})
	return sigsyaml.Marshal(policy)
}

func (cp *ControlPlane) prepareAPIServer(openLog func(string) (*os.File, error), o Options) error {
	path, err := supervised(cp.assets.Supervisor, cp.dir, "kube-apiserver", cp.assets.APIServer, cp.dir)
	if err != nil {
		return err
	}
	log, err := openLog("kube-apiserver")
	if err != nil {
		return err
	}
	certs := filepath.Join(cp.dir, "kube-apiserver-certs")
	if err := os.Mkdir(certs, 0o700); err != nil {
		return err
	}
	server := &envtest.APIServer{Path: path, CertDir: certs, Out: log, Err: log, StartTimeout: componentTimeout, StopTimeout: componentTimeout}
	if o.Audit || o.AuditUser != "" {
		policy := filepath.Join(cp.dir, "audit-policy.yaml")
		data, err := auditPolicy(o)
		if err != nil {
			return fmt.Errorf("writing the audit policy: %w", err)
		}
		if err := os.WriteFile(policy, data, 0o600); err != nil {
			return err
		}
		cp.audit = filepath.Join(cp.dir, "audit.log")
		server.Configure().Set("audit-policy-file", policy).Set("audit-log-path", cp.audit)
	}
	for flag, values := range o.APIServerArgs {
		server.Configure().Set(flag, values...)
	}
	cp.plane.APIServer = server
	return nil
}

// connect creates the administrator's credentials and waits until the API
// server has what every object needs.
func (cp *ControlPlane) connect(ctx context.Context) error {
	admin, err := cp.plane.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, clientLimits())
	if err != nil {
		return fmt.Errorf("creating the administrator: %w", err)
	}
	cp.config = admin.Config()
	kubeconfig, err := admin.KubeConfig()
	if err != nil {
		return fmt.Errorf("writing the kubeconfig: %w", err)
	}
	if err := os.WriteFile(cp.kubeconfig, kubeconfig, 0o600); err != nil {
		return fmt.Errorf("writing the kubeconfig: %w", err)
	}
	c, err := client.New(cp.config, client.Options{})
	if err != nil {
		return fmt.Errorf("connecting to the API server: %w", err)
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, pollEvery, componentTimeout, true, func(ctx context.Context) (bool, error) {
		last = c.Get(ctx, client.ObjectKey{Name: "default"}, &corev1.Namespace{})
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the namespace default: %w", errors.Join(err, last))
	}
	return nil
}

// clientLimits lets a test ask as fast as it can.
func clientLimits() *rest.Config { return &rest.Config{QPS: 1000, Burst: 2000} }

// InstallCRDs installs the CRDs in the given files and directories and waits
// until the API server serves them.
func (cp *ControlPlane) InstallCRDs(ctx context.Context, paths ...string) error {
	if len(paths) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("installing CRDs: %w", err)
	}
	_, err := envtest.InstallCRDs(cp.config, envtest.CRDInstallOptions{
		// No kinds: envtest would add conversion webhooks for those it knows.
		Scheme: runtime.NewScheme(), Paths: paths, ErrorIfPathMissing: true, MaxTime: crdTimeout, PollInterval: pollEvery,
	})
	if err != nil {
		return fmt.Errorf("installing CRDs: %w", err)
	}
	return nil
}

// Stop ends the control plane and removes its files. It can be called more
// than once.
func (cp *ControlPlane) Stop() error { return cp.stop() }

// Cleanup has f called by Stop, before the API server is stopped; the last one registered is called first. It is for programs that are connected
// to the API server, which waits for them when it stops.
func (cp *ControlPlane) Cleanup(f func() error) {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.cleanups = append(cp.cleanups, f)
}

func (cp *ControlPlane) cleanUp() (errs []error) {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	for _, f := range slices.Backward(cp.cleanups) {
		errs = append(errs, f())
	}
	cp.cleanups = nil
	return errs
}

// Config returns the administrator's client configuration.
func (cp *ControlPlane) Config() *rest.Config { return rest.CopyConfig(cp.config) }

// Kubeconfig is the path of the administrator's kubeconfig file.
func (cp *ControlPlane) Kubeconfig() string { return cp.kubeconfig }

// Assets are the programs that the control plane was started from.
func (cp *ControlPlane) Assets() assets.ControlPlane { return cp.assets }

// Dir is a directory for files that shall live as long as the control plane.
// The logs etcd.log and kube-apiserver.log are there.
func (cp *ControlPlane) Dir() string { return cp.dir }

// User returns the client configuration of another user. What it may do is
// what RBAC grants it.
func (cp *ControlPlane) User(name string, groups ...string) (*rest.Config, error) {
	user, err := cp.plane.AddUser(envtest.User{Name: name, Groups: groups}, clientLimits())
	if err != nil {
		return nil, fmt.Errorf("creating the user %s: %w", name, err)
	}
	return user.Config(), nil
}

// Kubectl runs kubectl as the administrator, with stdin, which may be nil, as
// its standard input, and returns what it printed. An exit code other than 0
// is an error that carries what it printed on standard error. It ends with ctx,
// at the latest after two minutes.
func (cp *ControlPlane) Kubectl(ctx context.Context, stdin io.Reader, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, kubectlTimeout, fmt.Errorf("it took longer than %s", kubectlTimeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, cp.assets.Kubectl, append([]string{"--kubeconfig=" + cp.kubeconfig}, args...)...)
	cmd.Env = cp.kubectlEnv()
	cmd.WaitDelay = 5 * time.Second
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errOut
	err = cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), errOut.String(), err
}

// kubectlEnv keeps a developer's own configuration out of the tests.
func (cp *ControlPlane) kubectlEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "KUBE")
	})
	return append(env, "HOME="+cp.dir, "KUBECACHEDIR="+filepath.Join(cp.dir, "kubectl-cache"))
}
