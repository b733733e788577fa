// Command flux-admission is an admission gate for Flux clusters.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailed = 1 // it ran and failed
	exitUsage  = 2 // it could not start: a wrong flag, an unreadable file, a taken port, no cluster
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	stderr := os.Stderr
	silenceLibraries()
	ctx, stop := terminated()
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, errFindings) {
		return exitFailed
	}
	fmt.Fprintln(stderr, "flux-admission: "+oneLine(err))
	if _, ok := errors.AsType[runError](err); ok {
		return exitFailed
	}
	return exitUsage
}

// silenceLibraries keeps the standard loggers quiet: Helm's merging of values prints them there, and they may come from a Secret. The program's own
// log goes through zap.
func silenceLibraries() {
	log.SetOutput(io.Discard)
	slog.SetDefault(slog.New(slog.DiscardHandler))
}

// terminated returns a context that ends at the first SIGINT or SIGTERM. The second one ends the process at once.
func terminated() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
			return
		}
		<-signals
		os.Exit(exitFailed)
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel()
	}
}

// runError marks a failure after a successful start.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

// oneLine puts an error of several lines on one.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "flux-admission",
		Short: "An admission gate for Flux clusters",
		Long: "flux-admission refuses, at kubectl apply and at Flux's own dry-run, the misconfigurations that otherwise surface an hour later " +
			"as a stuck reconciliation.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())
	})
	root.AddCommand(newServe(), newCheck(), newFix(), newRules(), newExplain(), newVersion())
	// It fails for a flag that there is not, which is a mistake in this program and shows at any start of it.
	cobra.CheckErr(addCompletions(root))
	return root
}
