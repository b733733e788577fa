// Command demo shows three mistakes on a real API server. It starts etcd and kube-apiserver with the CRDs of Flux and
// CloudNativePG, installs the manifests, runs the webhook server as a process, and sends each mistake as users and Flux do.
//
// It keeps running until Ctrl-C, so that you can try more with kubectl. With DEMO_EXIT=1 it ends by itself, with exit code 1
// if an answer was not the expected one.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

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
	fmt.Println("Starting etcd, kube-apiserver with the CRDs of Flux and CloudNativePG, and the webhook server with the manifests of",
		env.Overlay+".")
	e, err := env.Start(ctx, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Progress: os.Stdout, Audit: true},
		Charts:       []string{env.AirflowChart},
		Resources:    []string{env.MutatingWebhook},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Stop()) }()
	fmt.Printf("Ready after %s.\n", time.Since(began).Round(time.Second))

	s := &story{env: e, out: os.Stdout}
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
	fmt.Printf("\nThe API server and the webhook server keep running. Try your own:\n\n  %s --kubeconfig=%s get kustomizations -A\n\nCtrl-C stops everything.\n",
		e.ControlPlane.Assets().Kubectl, e.ControlPlane.Kubeconfig())
	<-ctx.Done()
	return nil
}
