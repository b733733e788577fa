// Command testenv builds the programs that the tests and the demonstration run: a test control plane and, with --flux,
// the controllers of Flux. It reports its progress on standard error.
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

const usage = "usage: testenv build [--flux]    build the programs of a control plane, with --flux also the controllers of Flux"

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
		fmt.Fprintf(stderr, "testenv: %v: see `testenv --help`\n", err)
		return 2
	}
	if err := build(ctx, flux, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "testenv:", err)
		return 1
	}
	return 0
}

// parse reads the command line and returns whether --flux is set.
func parse(args []string) (flux bool, err error) {
	flags := flag.NewFlagSet("testenv", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&flux, "flux", false, "")
	command := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	switch command {
	case "build":
	case "":
		return false, errors.New("no command: write `testenv build`")
	default:
		return false, fmt.Errorf("unknown command %q: write `testenv build`", command)
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
