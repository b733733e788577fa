// Command testenv builds the programs that the tests and the demonstration run: a test control plane and, with --flux and
// --cert-manager, the controllers of Flux and cert-manager. It reports its progress on standard error.
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

const usage = "usage: testenv build [--flux] [--cert-manager]    build the programs of a control plane, and the controllers of Flux and cert-manager"

// selection is what is built beside the control plane.
type selection struct{ flux, certManager bool }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 2 for a wrong command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	selected, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, usage)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "testenv: %v: see `testenv --help`\n", err)
		return 2
	}
	if err := build(ctx, selected, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "testenv:", err)
		return 1
	}
	return 0
}

// parse reads the command line.
func parse(args []string) (selected selection, err error) {
	flags := flag.NewFlagSet("testenv", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&selected.flux, "flux", false, "")
	flags.BoolVar(&selected.certManager, "cert-manager", false, "")
	command := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return selection{}, err
	}
	switch command {
	case "build":
	case "":
		return selection{}, errors.New("no command: write `testenv build`")
	default:
		return selection{}, fmt.Errorf("unknown command %q: write `testenv build`", command)
	}
	if flags.NArg() > 0 {
		return selection{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return selected, nil
}

func build(ctx context.Context, selected selection, stdout, stderr io.Writer) error {
	plane, err := assets.BuildControlPlane(ctx, stderr)
	if err != nil {
		return err
	}
	paths := []string{plane.Etcd, plane.APIServer, plane.Kubectl}
	if selected.flux {
		controllers, err := assets.BuildFlux(ctx, stderr)
		if err != nil {
			return err
		}
		paths = append(paths, controllers.SourceController, controllers.KustomizeController, controllers.HelmController)
	}
	if selected.certManager {
		controllers, err := assets.BuildCertManager(ctx, stderr)
		if err != nil {
			return err
		}
		paths = append(paths, controllers)
	}
	if _, err := assets.CRDs(ctx, assets.DefaultCRDs()...); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, strings.Join(paths, "\n"))
	return err
}
