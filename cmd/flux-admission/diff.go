package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/check/progress"
	"github.com/flux-admission/flux-admission/internal/check/revision"
	"github.com/flux-admission/flux-admission/internal/dryrun"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/internal/treediff"
)

type diffOptions struct {
	check.Input
	base, head     string // revisions; empty for the merge base and for the working tree
	output         string
	helm, exitCode bool
	// live compares with a cluster in place of a base.
	live                    bool
	kubeconfig, kubecontext string
}

// workingTree is the name of the files as they are, in a diff.
const workingTree = "working tree"

func newDiff() *cobra.Command {
	var o diffOptions
	c := &cobra.Command{
		Use:   "diff [BASE [HEAD]] [PATH]",
		Short: "Compare what two revisions apply, or a tree and a cluster",
		Long: "Build two revisions of a Git tree as Flux would and compare the objects, field by\n" +
			"field. Generated hashes and the order of objects do not count. Below that is what\n" +
			"the change does in the cluster: what Flux deletes and what goes with it, fields\n" +
			"that are immutable, releases that Helm installs again, what restarts, what is\n" +
			"suspended; then what the admission webhook would deny, and new findings of check.\n\n" +
			"BASE is a Git revision (default: where HEAD left the default branch), HEAD\n" +
			"another one (default: the working tree, with changes that are not committed).\n" +
			"PATH is the root of the tree (default: .). Values of Secrets are never printed.\n\n" +
			"With --live, the base is a cluster, and the only revision is HEAD. The API server\n" +
			"applies each object in a dry-run, as Flux would, with all admission webhooks;\n" +
			"nothing is stored. This needs the permission to patch what Flux applies; what the\n" +
			"user may not read or patch is named as not compared.\n\n" +
			"Exit code 0: compared. 1: there are differences, with --exit-code only. 2: diff\n" +
			"could not run.",
		Example: "  flux-admission diff                          # this branch, all changes\n" +
			"  flux-admission diff main~1 main\n" +
			"  flux-admission diff --live --context prod    # this tree and that cluster\n" +
			"  flux-admission diff --helm --fetch-charts --output markdown > comment.md",
		Args: cobra.MaximumNArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.parse(c.Context(), args); err != nil {
				return err
			}
			if err := o.validateLive(); err != nil {
				return err
			}
			return withoutWarnings(func() error { return runDiff(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr()) })
		},
	}
	addInputFlags(c, &o.Input)
	f := c.Flags()
	f.BoolVar(&o.helm, "helm", false, "also compare the objects of the HelmReleases' charts (default false)")
	f.BoolVar(&o.live, "live", false, "compare with the cluster of --kubeconfig and --context (default false)")
	addClusterFlags(c, &o.kubeconfig, &o.kubecontext)
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 1 if there are differences (default false)")
	f.StringVarP(&o.output, "output", "o", string(report.Text), "format of the diff: text, markdown, html or json")
	return c
}

// parse reads the arguments. The last one is the path if it is a directory and no revision.
func (o *diffOptions) parse(ctx context.Context, args []string) error {
	o.Path = "."
	if n := len(args); n > 0 {
		last := args[n-1]
		info, err := os.Stat(last)
		if err == nil && info.IsDir() {
			_, err := revision.Resolve(ctx, ".", last)
			if err == nil && n < 3 && !strings.ContainsAny(last, `/\.`) {
				return fmt.Errorf("%s is a revision and a directory; write refs/heads/%s or ./%s", last, last, last)
			}
			o.Path, args = last, args[:n-1]
		}
	}
	switch len(args) {
	case 0:
	case 1:
		o.base = args[0]
	case 2:
		o.base, o.head = args[0], args[1]
	default:
		return fmt.Errorf("%s is not a directory", args[2])
	}
	return nil
}

func runDiff(ctx context.Context, o diffOptions, stdout, stderr io.Writer) (err error) {
	if !slices.Contains(report.DiffFormats(), report.Format(o.output)) {
		return fmt.Errorf("--output %q: use text, markdown, html or json", o.output)
	}
	bar := progress.New(stderr, false)
	defer bar.End()
	o.Built, o.Warning = bar.Built, warnTo(stderr)
	compare := o.compare
	if o.live {
		compare = o.compareLive
	}
	d, err := compare(ctx)
	if err != nil {
		return err
	}
	bar.End()
	d.Tool = report.Tool{Name: "flux-admission", Version: versionString()}
	opts := report.Options{DocsURL: docsURL, PathPrefix: pathPrefix(o.Path)}
	if f, ok := stdout.(*os.File); ok {
		opts.Color = report.ColorWanted(f, os.Getenv)
	}
	if err := report.WriteDiff(stdout, report.Format(o.output), d, opts); err != nil {
		return err
	}
	if o.exitCode && d.Differs() {
		return runError{errFindings}
	}
	return nil
}

// compare loads both trees and compares them.
func (o *diffOptions) compare(ctx context.Context) (_ *report.Diff, err error) {
	base := report.Revision{Name: o.base}
	if o.base == "" {
		var branch string
		if base.Commit, branch, err = revision.MergeBase(ctx, o.Path); err != nil {
			return nil, fmt.Errorf("the base: %w", err)
		}
		base.Name = "the merge base with " + branch
	}
	before, err := o.load(ctx, &base)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, before.close()) }()
	head := report.Revision{Name: o.head}
	after, err := o.load(ctx, &head)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, after.close()) }()
	// A cluster that is new, or that goes, is in one of them only.
	if len(before.Clusters())+len(after.Clusters()) == 0 && o.Cluster != "" {
		return nil, fmt.Errorf("%s: %w", head, after.CheckCluster())
	}
	if len(before.Built.Clusters) == 0 && len(after.Built.Clusters) == 0 {
		return nil, errNothingChecked(o.Path)
	}
	d, err := treediff.Compare(ctx, before.Tree, after.Tree, treediff.Options{Charts: o.helm, Policy: o.Policy})
	if err != nil {
		return nil, err
	}
	d.Base, d.Head = base, head
	return d, nil
}

// validateLive checks the flags about a cluster.
func (o *diffOptions) validateLive() error {
	switch {
	case !o.live && o.kubeconfig+o.kubecontext != "":
		return errors.New("--kubeconfig and --context name a cluster to compare with: add --live")
	case !o.live:
		return nil
	case o.head != "":
		return fmt.Errorf("--live compares a cluster with one revision; %s is a second one", o.head)
	case o.helm:
		return errors.New("--live does not compare the objects of charts: helm-controller applies them, not Flux's server-side apply; remove --helm")
	}
	o.base, o.head = "", o.base
	return nil
}

// compareLive loads the tree of the head and compares it with a cluster.
func (o *diffOptions) compareLive(ctx context.Context) (_ *report.Diff, err error) {
	config, err := clusterConfig(o.kubeconfig, o.kubecontext)
	if err != nil {
		return nil, err
	}
	config.Timeout = requestTimeout
	ctrllog.SetLogger(logr.Discard())
	head := report.Revision{Name: o.head}
	tree, err := o.load(ctx, &head)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tree.close()) }()
	if err := tree.CheckCluster(); err != nil {
		return nil, err
	}
	var of *kustomization.Cluster
	var names []string
	for _, c := range tree.Clusters() {
		if c.Entry != nil {
			of = c
			names = append(names, c.Name)
		}
	}
	switch {
	case of == nil:
		return nil, fmt.Errorf("--live: no Flux entry point was found in %s; give the directory that the cluster syncs with --entrypoint DIR", o.Path)
	case len(names) > 1:
		return nil, fmt.Errorf("--live: the tree has several clusters; choose one with --cluster: %s", strings.Join(names, ", "))
	}
	name := clusterName(o.kubeconfig, o.kubecontext)
	live, err := dryrun.Run(ctx, config, of)
	if err != nil {
		return nil, fmt.Errorf("the cluster %s: %w", name, err)
	}
	d, err := treediff.CompareLive(ctx, live, tree.Tree, of, treediff.Options{Policy: o.Policy})
	if err != nil {
		return nil, err
	}
	d.Base, d.Head = report.Revision{Name: "the cluster " + name}, head
	return d, nil
}

// revisionTree is the built tree of a revision.
type revisionTree struct {
	*check.Tree
	dir string // to remove; empty for the working tree
}

func (t *revisionTree) close() error {
	t.Tree.Close()
	if t.dir == "" {
		return nil
	}
	return os.RemoveAll(t.dir)
}

// load builds the tree of a revision, and sets its commit; without a name it is the working tree.
func (o *diffOptions) load(ctx context.Context, r *report.Revision) (_ *revisionTree, err error) {
	in := o.Input
	in.ClusterOptional = true
	out := &revisionTree{}
	if r.Name == "" {
		r.Name = workingTree
	} else {
		if r.Commit == "" {
			if r.Commit, err = revision.Resolve(ctx, o.Path, r.Name); err != nil {
				return nil, err
			}
		}
		if out.dir, err = os.MkdirTemp("", "flux-admission-"); err != nil {
			return nil, fmt.Errorf("creating a directory for %s: %w", r.Name, err)
		}
		if err := revision.Export(ctx, o.Path, r.Commit, out.dir); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", r, err), os.RemoveAll(out.dir))
		}
		in.Path = out.dir
	}
	if out.Tree, err = check.Load(ctx, in); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", r, err), os.RemoveAll(out.dir))
	}
	return out, nil
}
