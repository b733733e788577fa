// Command demo tells the story of the three mistakes on a real API server: it starts etcd and kube-apiserver with Flux's and
// CloudNativePG's CRDs, installs the gate's own manifests, runs the gate as a process, and sends each mistake the way people and Flux do.
//
// It keeps running until Ctrl-C, so that one can try more with kubectl. With DEMO_EXIT=1 it ends by itself, with exit code 1 when an
// answer was not the expected one.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/flux-admission/flux-admission/test/chartrepo"
	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctrllog.SetLogger(logr.Discard())
	if err := run(ctx); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(os.Stderr, "stopped")
			os.Exit(130) //nolint:gocritic // run has cleaned up
		}
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	began := time.Now()
	fmt.Println("Starting etcd and kube-apiserver with the CRDs of Flux and CloudNativePG. The first time, they are built from their Go modules.")
	cp, err := controlplane.Start(ctx, controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Progress: os.Stdout, Audit: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cp.Stop()) }()
	fmt.Println("Building flux-admission, installing", env.Overlay, "and starting the gate.")
	g, err := env.Deploy(ctx, cp)
	if err != nil {
		return err
	}
	repository, err := serveCharts(cp.Dir())
	if err != nil {
		return err
	}
	defer repository.Close()
	c, err := client.New(cp.Config(), client.Options{Scheme: runtime.NewScheme()})
	if err != nil {
		return fmt.Errorf("connecting to the API server: %w", err)
	}
	fmt.Printf("Ready after %s.\n", time.Since(began).Round(time.Second))

	s := &story{cp: cp, gate: g, client: c, out: os.Stdout, repositoryURL: repository.URL}
	wrong, err := s.tell(ctx)
	if err != nil {
		return err
	}
	if os.Getenv("DEMO_EXIT") == "1" {
		if wrong > 0 {
			return fmt.Errorf("%d answers were not the expected ones", wrong)
		}
		return nil
	}
	fmt.Printf("\nThe API server and the gate keep running. Try your own:\n\n  %s --kubeconfig=%s get kustomizations -A\n\nCtrl-C stops everything.\n",
		cp.Assets().Kubectl, cp.Kubeconfig())
	<-ctx.Done()
	return nil
}

// serveCharts packages the demo's chart and serves it as a Helm repository.
func serveCharts(dir string) (*httptest.Server, error) {
	root, err := env.Root()
	if err != nil {
		return nil, err
	}
	web := filepath.Join(dir, "charts")
	if err := os.Mkdir(web, 0o750); err != nil {
		return nil, err
	}
	return chartrepo.Serve(web, filepath.Join(root, "test", "demo", "charts", "airflow"))
}
