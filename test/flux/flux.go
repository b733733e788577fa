// Package flux runs Flux's real source-controller, kustomize-controller and
// helm-controller on a test control plane, and applies objects the way
// kustomize-controller does.
package flux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/controlplane/assets"
)

// Namespace is where Flux runs.
const Namespace = "flux-system"

const (
	// readyTimeout bounds one attempt to start a controller.
	readyTimeout = time.Minute
	// stopGrace is what a controller gets to end by itself.
	stopGrace = 15 * time.Second
	// startAttempts is how often a controller is started: a port that was free
	// may be taken by the time it listens.
	startAttempts = 3
	pollEvery     = 200 * time.Millisecond
)

// Options say what Start starts.
type Options struct {
	// Plane is where the controllers run. It serves the CRDs FluxSource,
	// FluxKustomize and, with Helm, FluxHelm.
	Plane *controlplane.ControlPlane
	// Assets are the programs; zero means to build them.
	Assets assets.Flux
	// SourceArgs and KustomizeArgs are added to the controllers' flags.
	SourceArgs, KustomizeArgs []string
	// Helm starts helm-controller as well, which installs every HelmRelease.
	Helm bool
	// LogDir receives the log of each controller, as its name and .log.
	// Empty means a directory that Stop removes.
	LogDir string
	// Progress is told what is built; nil is silent.
	Progress io.Writer
}

// Flux are running controllers.
type Flux struct {
	source, kustomize, helm *controlplane.Process
	stop                    func() error
}

// Start builds the controllers if need be, starts them, and returns when all
// are ready. The caller ends them with Stop, before the control plane. When
// Start returns an error nothing it started is left.
func Start(ctx context.Context, o Options) (_ *Flux, err error) {
	if o.Assets == (assets.Flux{}) {
		if o.Assets, err = assets.BuildFlux(ctx, o.Progress); err != nil {
			return nil, err
		}
	}
	if err := createNamespace(ctx, o.Plane); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Plane.Dir(), "flux-")
	if err != nil {
		return nil, fmt.Errorf("starting Flux: %w", err)
	}
	if o.LogDir == "" {
		o.LogDir = dir
	}
	f := &Flux{}
	f.stop = sync.OnceValue(func() error {
		var errs []error
		for _, process := range []*controlplane.Process{f.helm, f.kustomize, f.source} {
			if process != nil {
				errs = append(errs, process.Stop(stopGrace))
			}
		}
		if err := errors.Join(append(errs, os.RemoveAll(dir))...); err != nil {
			return fmt.Errorf("stopping Flux: %w", err)
		}
		return nil
	})
	defer func() {
		if err != nil {
			err = errors.Join(err, f.stop())
		}
	}()

	storage := filepath.Join(dir, "artifacts")
	if err := os.Mkdir(storage, 0o700); err != nil {
		return nil, fmt.Errorf("starting Flux: %w", err)
	}
	f.source, err = startController(ctx, o, dir, "source-controller", o.Assets.SourceController, func() ([]string, error) {
		artifacts, err := controlplane.FreeAddress()
		return append([]string{"--storage-path=" + storage, "--storage-addr=" + artifacts, "--storage-adv-addr=" + artifacts}, o.SourceArgs...), err
	})
	if err != nil {
		return nil, err
	}
	f.kustomize, err = startController(ctx, o, dir, "kustomize-controller", o.Assets.KustomizeController, func() ([]string, error) {
		return o.KustomizeArgs, nil
	})
	if err != nil {
		return nil, err
	}
	if o.Helm {
		f.helm, err = startController(ctx, o, dir, "helm-controller", o.Assets.HelmController, func() ([]string, error) {
			return []string{"--graceful-shutdown-timeout=5s"}, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Stop ends the controllers. It can be called more than once.
func (f *Flux) Stop() error { return f.stop() }

// Source and Kustomize are the controllers' processes, to look into their
// logs or to disturb them.
func (f *Flux) Source() *controlplane.Process    { return f.source }
func (f *Flux) Kustomize() *controlplane.Process { return f.kustomize }

func createNamespace(ctx context.Context, plane *controlplane.ControlPlane) error {
	c, err := client.New(plane.Config(), client.Options{})
	if err == nil {
		err = c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating the namespace %s: %w", Namespace, err)
	}
	return nil
}

// startController starts a controller, with the flags that flags returns for
// each attempt, and waits until it is ready.
func startController(ctx context.Context, o Options, dir, name, path string, flags func() ([]string, error)) (*controlplane.Process, error) {
	var errs []error
	for range startAttempts {
		health, err := controlplane.FreeAddress()
		if err != nil {
			return nil, fmt.Errorf("starting %s: %w", name, err)
		}
		args, err := flags()
		if err != nil {
			return nil, fmt.Errorf("starting %s: %w", name, err)
		}
		process, err := controlplane.StartProcess(controlplane.Command{
			Name: name, Path: path, Dir: dir, Log: filepath.Join(o.LogDir, name+".log"), Supervisor: o.Plane.Assets().Supervisor,
			Args: append([]string{"--health-addr=" + health, "--metrics-addr=0", "--events-addr="}, args...),
			Env:  []string{"KUBECONFIG=" + o.Plane.Kubeconfig(), "RUNTIME_NAMESPACE=" + Namespace},
		})
		if err != nil {
			return nil, err
		}
		err = waitReady(ctx, process, "http://"+health+"/readyz")
		if err == nil {
			return process, nil
		}
		errs = append(errs, fmt.Errorf("starting %s: %w", name, err), process.Stop(stopGrace))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func waitReady(ctx context.Context, process *controlplane.Process, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("it was not ready after %s; its log is %s", readyTimeout, process.Log()))
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		if answersOK(ctx, url) {
			return nil
		}
		select {
		case <-process.Ended():
			return process.Failure()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func answersOK(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	return err == nil && response.Body.Close() == nil && response.StatusCode == http.StatusOK
}
