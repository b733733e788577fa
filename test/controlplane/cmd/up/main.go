// Command up runs a control plane with the CRDs of Flux and CloudNativePG
// until it is interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/flux-admission/flux-admission/test/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 {
		fmt.Fprintf(os.Stderr, "up: unexpected argument %q: it takes none\n", os.Args[1])
		os.Exit(2)
	}
	if err := up(ctx, os.Stdout, os.Stderr); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "up:", err)
		os.Exit(1)
	}
}

// up runs a control plane until ctx ends.
func up(ctx context.Context, stdout, stderr io.Writer) (err error) {
	began := time.Now()
	cp, err := controlplane.Start(ctx, controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Audit: true, Progress: stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cp.Stop()) }()
	_, err = fmt.Fprintf(stdout, `The control plane is up after %.0f s. Ctrl-C stops it and removes its files.

  export KUBECONFIG=%s
  %s get crds

Its logs, the audit log among them, are in %s
`, time.Since(began).Seconds(), cp.Kubeconfig(), cp.Assets().Kubectl, cp.Dir())
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
