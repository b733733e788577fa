// Command bench builds what the tests and the demonstration run: a control
// plane and, if asked, Flux. It says how far it is.
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

	"github.com/flux-admission/flux-admission/test/controlplane/assets"
)

const usage = "usage: bench build [--flux]    build a control plane's programs; with --flux also Flux's controllers"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 2 for a wrong command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flux, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, usage)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v: see `bench --help`\n", err)
		return 2
	}
	if err := build(ctx, flux, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// parse reads the command line and returns whether Flux is wanted.
func parse(args []string) (flux bool, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&flux, "flux", false, "")
	verb := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	switch verb {
	case "build":
	case "":
		return false, errors.New("no verb: write `bench build`")
	default:
		return false, fmt.Errorf("no verb is named %q: write `bench build`", verb)
	}
	if flags.NArg() > 0 {
		return false, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return flux, nil
}

func build(ctx context.Context, flux bool, stdout, stderr io.Writer) error {
	plane, err := assets.BuildControlPlane(ctx, stderr)
	if err != nil {
		return err
	}
	paths := []string{plane.Etcd, plane.APIServer, plane.Kubectl}
	if flux {
		controllers, err := assets.BuildFlux(ctx, stderr)
		if err != nil {
			return err
		}
		paths = append(paths, controllers.SourceController, controllers.KustomizeController)
	}
	if _, err := assets.CRDs(ctx, assets.DefaultCRDs()...); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, strings.Join(paths, "\n"))
	return err
}
