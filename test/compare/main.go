// Command compare runs the check command of two flux-admission binaries over the same trees and prints the findings in
// which they differ. It guards changes that must not change what is reported: the rule, object, file, line and action
// of each finding count, the texts do not.
//
//	go run ./test/compare [--shared DIR] [--only TEXT] BEFORE AFTER
//
// It exits with 1 when a tree differs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"golang.org/x/sync/errgroup"
)

var errDiffer = errors.New("the binaries differ")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		if errors.Is(err, errDiffer) {
			os.Exit(1)
		}
		os.Exit(2)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	shared := flags.String("shared", "", "directory with replay, charts and cases; their trees are compared as well")
	root := flags.String("root", ".", "root of this project")
	only := flags.String("only", "", "compare only trees whose name contains this text")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("want two binaries: BEFORE AFTER")
	}
	var binaries [2]string
	for i := range binaries {
		if binaries[i], err = filepath.Abs(flags.Arg(i)); err != nil {
			return fmt.Errorf("finding the binary: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return fmt.Errorf("creating a directory for the trees: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c := &collector{dir: dir, only: *only}
	if err := c.project(*root); err != nil {
		return err
	}
	if *shared != "" {
		if err := c.shared(ctx, *shared); err != nil {
			return err
		}
	}
	if len(c.trees) == 0 {
		return errors.New("there is no tree to compare")
	}
	results, err := compareAll(ctx, binaries, c.trees)
	if err != nil {
		return err
	}
	return printResults(stdout, c.trees, results)
}

// compareAll compares the trees one after the other, with both binaries at a time.
func compareAll(ctx context.Context, binaries [2]string, trees []tree) ([]comparison, error) {
	results := make([]comparison, len(trees))
	for i, t := range trees {
		var outcomes [2]*outcome
		both, ctx := errgroup.WithContext(ctx)
		for n, binary := range binaries {
			both.Go(func() (err error) {
				outcomes[n], err = check(ctx, binary, t, n == 0)
				return err
			})
		}
		if err := both.Wait(); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		results[i] = compare(outcomes[0], outcomes[1])
	}
	return results, nil
}

// printResults writes the differences of each tree, then a table of the groups of trees.
func printResults(to io.Writer, trees []tree, results []comparison) error {
	type sum struct{ trees, differing, findings int }
	var order []string
	groups := map[string]*sum{}
	total := &sum{}
	var text strings.Builder
	for i, t := range trees {
		if groups[t.group] == nil {
			groups[t.group] = &sum{}
			order = append(order, t.group)
		}
		r := results[i]
		for _, s := range []*sum{groups[t.group], total} {
			s.trees++
			s.findings += r.lines
			if !r.equal() {
				s.differing++
			}
		}
		if r.equal() {
			continue
		}
		fmt.Fprintf(&text, "%s\n", t.name)
		for _, line := range r.removed {
			fmt.Fprintf(&text, "  - %s\n", line)
		}
		for _, line := range r.added {
			fmt.Fprintf(&text, "  + %s\n", line)
		}
	}
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "trees\tlines compared\ttrees that differ\t ")
	for _, name := range order {
		fmt.Fprintf(w, "%d\t%d\t%d\t %s\n", groups[name].trees, groups[name].findings, groups[name].differing, name)
	}
	fmt.Fprintf(w, "%d\t%d\t%d\t total\n", total.trees, total.findings, total.differing)
	if err := w.Flush(); err != nil {
		return err
	}
	if _, err := io.WriteString(to, text.String()); err != nil {
		return fmt.Errorf("writing the comparison: %w", err)
	}
	if total.differing > 0 {
		return fmt.Errorf("%w in %d of %d trees", errDiffer, total.differing, total.trees)
	}
	return nil
}
