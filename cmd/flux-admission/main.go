// Command flux-admission is an admission webhook for Flux clusters, and runs its rules on Git trees.
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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mitchellh/go-wordwrap"
	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailed = 1 // it ran and failed
	exitUsage  = 2 // it could not start: an invalid flag, an unreadable file, a port in use, no cluster
	// exitInterrupted is what shells use for a program that SIGINT ended.
	exitInterrupted = 130
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	stderr := os.Stderr
	silenceLibraries()
	ctx, stop := terminated(gracePeriod(args))
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
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, interrupted)
		return exitInterrupted
	}
	fmt.Fprintln(stderr, "flux-admission: "+oneLine(err))
	if _, ok := errors.AsType[runError](err); ok {
		return exitFailed
	}
	return exitUsage
}

// silenceLibraries discards the output of the standard loggers: Helm logs values there when it merges them, and they
// may come from a Secret. The program itself logs with zap.
func silenceLibraries() {
	log.SetOutput(io.Discard)
	slog.SetDefault(slog.New(slog.DiscardHandler))
}

// interrupted is the message of a program that a signal ended.
const interrupted = "flux-admission: interrupted"

// gracePeriod returns how long a command may take to end after a signal, 0 for as long as it needs. A server ends its requests
// first. Any other command may be blocked where nothing cancels it, in a build of kustomize or in reading a named pipe.
func gracePeriod(args []string) time.Duration {
	if len(args) > 0 && args[0] == "serve" {
		return 0
	}
	return 3 * time.Second
}

// terminated returns a context that is canceled by the first SIGINT or SIGTERM. The program exits with the second one at
// once, and after the grace period.
func terminated(grace time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ended := make(chan struct{})
	stderr := os.Stderr // commands replace it
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ended:
			return
		}
		var late <-chan time.Time
		if grace > 0 {
			late = time.After(grace)
		}
		select {
		case <-signals:
		case <-late:
		case <-ended:
			return
		}
		fmt.Fprintln(stderr, interrupted)
		os.Exit(exitInterrupted)
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(ended)
		cancel()
	}
}

// runError marks a failure after a successful start.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

// oneLine joins the lines of an error.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	// Cobra lists similar commands below a line of its own.
	if i := slices.Index(lines, "Did you mean this?"); i > 0 {
		lines = append(lines[:i], "did you mean "+strings.Join(lines[i+1:], " or ")+"?")
	}
	return strings.Join(lines, "; ")
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "flux-admission",
		Short: "Admission webhook and checker for Flux clusters",
		Long: "flux-admission denies, at kubectl apply and at Flux's own dry-run, the\n" +
			"misconfigurations that otherwise surface later as a stuck reconciliation. The same\n" +
			"rules check a Git tree.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.Version = versionString()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetUsageTemplate(strings.NewReplacer(
		".LocalFlags.FlagUsages", fmt.Sprintf(".LocalFlags.FlagUsagesWrapped %d", helpWidth),
		".InheritedFlags.FlagUsages", fmt.Sprintf(".InheritedFlags.FlagUsagesWrapped %d", helpWidth),
	).Replace(root.UsageTemplate()))
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())
	})
	root.AddCommand(
		newServe(), newCheck(), newAudit(), newWhy(), newBuild(), newGet(), newDiff(), newFix(), newRules(), newExplain(),
		newRotate(), newVersion(),
	)
	// An error is a mistake in this program: an unknown flag.
	cobra.CheckErr(addCompletions(root))
	wrapHelp(root)
	return root
}

// helpWidth is the width of help texts, in columns.
const helpWidth = 80

// wrapHelp wraps the texts of a command and of those below it.
func wrapHelp(c *cobra.Command) {
	paragraphs := strings.Split(c.Long, "\n\n")
	for i, text := range paragraphs {
		paragraphs[i] = wordwrap.WrapString(strings.ReplaceAll(text, "\n", " "), helpWidth)
	}
	c.Long = strings.Join(paragraphs, "\n\n")
	for _, sub := range c.Commands() {
		wrapHelp(sub)
	}
}
