// Command bench builds and runs the control plane that the tests use.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/flux-admission/flux-admission/test/controlplane"
)

const usage = `usage: bench build [--flux]            build what a control plane needs; with --flux also Flux's controllers
       bench up [--crds NAME,NAME]    run a control plane until Ctrl-C`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	var usageErr usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usageErr):
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	default:
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return usageError{errors.New("no verb: write `bench build` or `bench up`")}
	}
	verb, args := args[0], args[1:]
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	switch verb {
	case "build":
		flux := flags.Bool("flux", false, "")
		if err := parse(flags, args); err != nil {
			return err
		}
		return build(ctx, *flux, stdout, stderr)
	case "up":
		crds := flags.String("crds", "", "")
		if err := parse(flags, args); err != nil {
			return err
		}
		return up(ctx, *crds, stdout, stderr)
	case "help", "-h", "--help":
		_, err := fmt.Fprintln(stdout, usage)
		return err
	default:
		return usageError{fmt.Errorf("no verb is named %q: write `bench build` or `bench up`", verb)}
	}
}

func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return usageError{fmt.Errorf("%s: %w: see `bench help`", flags.Name(), err)}
	}
	if flags.NArg() > 0 {
		return usageError{fmt.Errorf("%s: unexpected argument %q: see `bench help`", flags.Name(), flags.Arg(0))}
	}
	return nil
}

func build(ctx context.Context, flux bool, stdout, stderr io.Writer) error {
	assets, err := controlplane.Binaries(ctx, stderr)
	if err != nil {
		return err
	}
	paths := []string{assets.Etcd, assets.APIServer, assets.Kubectl}
	if flux {
		controllers, err := controlplane.FluxBinaries(ctx, stderr)
		if err != nil {
			return err
		}
		paths = append(paths, controllers.SourceController, controllers.KustomizeController)
	}
	if _, err := controlplane.CRDs(ctx, controlplane.DefaultCRDs()...); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, strings.Join(paths, "\n"))
	return err
}

func up(ctx context.Context, crds string, stdout, stderr io.Writer) (err error) {
	sets := controlplane.DefaultCRDs()
	if crds != "" {
		sets = nil
		for name := range strings.SplitSeq(crds, ",") {
			sets = append(sets, controlplane.CRDSet(name))
		}
	}
	began := time.Now()
	cp, err := controlplane.Start(ctx, controlplane.Options{CRDSets: sets, Audit: true, Progress: stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cp.Stop()) }()
	_, err = fmt.Fprintf(stdout, "The control plane is up after %.0f s. Ctrl-C stops it and removes its files.\n\n  export KUBECONFIG=%s\n  %s get crds\n\nLogs: %s\n",
		time.Since(began).Seconds(), cp.Kubeconfig(), cp.Assets().Kubectl, cp.Dir())
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
