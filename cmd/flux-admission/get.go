package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/inventory"
)

type getOptions struct {
	check.Input
	what   inventory.What
	output string
}

// maxNotes is how many lines of one sort of note are printed.
const maxNotes = 5

func newGet() *cobra.Command {
	var o getOptions
	c := &cobra.Command{
		Use:   "get ks|hr|sources|images|all [PATH]",
		Short: "List Kustomizations, releases, sources or images of a Git tree",
		Long: "Build a Git tree as Flux would and list its Kustomizations (ks), HelmReleases\n" +
			"(hr), sources, container images, or all of these. PATH is the root of the tree\n" +
			"(default: .).\n\n" +
			"Images of a HelmRelease are known if its chart is: give --charts or\n" +
			"--fetch-charts. What is unknown is named on standard error.\n\n" +
			"Exit code 0: the list is printed. 2: the tree could not be read, or has none of\n" +
			"what was asked for.",
		Example: "  flux-admission get ks\n" +
			"  flux-admission get images --fetch-charts --output name\n" +
			"  flux-admission get all --output json",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if o.what, err = parseWhat(args[0]); err != nil {
				return err
			}
			o.Path, o.Stdin = pathOf(args[1:]), c.InOrStdin()
			return withoutWarnings(func() error { return runGet(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr()) })
		},
	}
	addInputFlags(c, &o.Input)
	c.Flags().StringVarP(&o.output, "output", "o", string(inventory.Table), "format of the list: table, wide, yaml, json or name")
	return c
}

// parseWhat returns what to list.
func parseWhat(arg string) (inventory.What, error) {
	switch strings.ToLower(arg) {
	case "ks", "kustomization", "kustomizations":
		return inventory.What{Kustomizations: true}, nil
	case "hr", "helmrelease", "helmreleases", "releases":
		return inventory.What{HelmReleases: true}, nil
	case "source", "sources":
		return inventory.What{Sources: true}, nil
	case "image", "images":
		return inventory.What{Images: true}, nil
	case "all":
		return inventory.What{Kustomizations: true, HelmReleases: true, Sources: true, Images: true}, nil
	}
	return inventory.What{}, fmt.Errorf("get %q: use ks, hr, sources, images or all", arg)
}

func runGet(ctx context.Context, o getOptions, stdout, stderr io.Writer) error {
	if !slices.Contains(inventory.Formats(), inventory.Format(o.output)) {
		return fmt.Errorf("--output %q: use table, wide, yaml, json or name", o.output)
	}
	t, err := loadWithBar(ctx, o.Input, stderr)
	if err != nil {
		return err
	}
	defer t.Close()
	list, err := inventory.List(ctx, t, o.what)
	if err != nil {
		return err
	}
	writeNotes(stderr, "objects of these Kustomizations are not all known", list.Unbuilt)
	writeNotes(stderr, "images of these HelmReleases are unknown", list.Untemplated)
	if len(list.Kustomizations)+len(list.HelmReleases)+len(list.Sources)+len(list.Images) == 0 {
		return errors.New("there is nothing of that in the tree; give the root of the Git tree, or --entrypoint DIR")
	}
	if err := list.Write(stdout, inventory.Format(o.output)); err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	return nil
}

// writeNotes writes a note about each item to standard error, and the number of those left out.
func writeNotes(stderr io.Writer, title string, items []string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(stderr, "%s (%d):\n", title, len(items))
	for _, item := range items[:min(len(items), maxNotes)] {
		fmt.Fprintf(stderr, "  %s\n", item)
	}
	if len(items) > maxNotes {
		fmt.Fprintf(stderr, "  and %d more\n", len(items)-maxNotes)
	}
}
