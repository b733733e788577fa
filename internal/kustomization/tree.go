package kustomization

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/internal/kustomization/entrypoint"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
)

// ErrNoEntryPoint means that nothing in the tree defines where Flux starts to reconcile it.
var ErrNoEntryPoint = errors.New("no Flux entry point: the tree has no FluxInstance with spec.sync and no gotk-sync.yaml; name the directory that Flux syncs, or check the files as plain manifests")

// Options are the inputs of Build.
type Options struct {
	// Root is the directory of the tree.
	Root string
	// EntryPoints are directories relative to Root, each the entry point of a cluster. Empty means to find them.
	EntryPoints []string
	// Variables are values of variables that are not in Git. They are used where substituteFrom of a Kustomization
	// refers to an object that nothing in the tree provides.
	Variables map[string]string
	// Sources maps other sources to directories. A key is NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME; the most
	// specific one counts.
	Sources map[string]string
	// AllowRemoteBases lets kustomize fetch remote resources, over HTTP and with git. Otherwise they are left out and
	// reported.
	AllowRemoteBases bool
	// Mutate returns one of Flux's objects as the cluster's mutating webhooks change it, or nil when they do not. It
	// gets the name of the cluster, and must not change the object. Nil mutates nothing.
	Mutate func(cluster string, o *unstructured.Unstructured) *unstructured.Unstructured
	// Limits bound what is read.
	Limits sourcetree.Limits
	// Workers is how many Kustomizations are built concurrently; default: the number of processors.
	Workers int
}

// Build builds a Git tree: every Flux Kustomization that its entry points lead to, and the objects that each of them
// applies. It returns ErrNoEntryPoint when there is no entry point, and an error when the tree cannot be listed, a
// given directory does not exist, or the context ends. Everything else that is wrong is in the result.
func Build(ctx context.Context, opts Options) (_ *Result, err error) {
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	t, err := sourcetree.Open(ctx, opts.Root, "", opts.Limits)
	if err != nil {
		return nil, err
	}
	b := &treeBuilder{
		opts: opts, tree: t, sources: map[string]*sourcetree.Tree{}, read: map[*sourcetree.File]bool{},
		builder: build.NewBuilder(opts.AllowRemoteBases),
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for name, dir := range opts.Sources {
		source, err := sourcetree.Open(ctx, dir, name+":", opts.Limits)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", name, err)
		}
		b.sources[name] = source
	}
	res := &Result{}
	if res.Problems, res.Files, err = b.parseAll(ctx); err != nil {
		return nil, err
	}
	entries, problems, err := entrypoint.Find(t.Artifact(""), opts.EntryPoints)
	if err != nil {
		return nil, err
	}
	res.Problems = append(res.Problems, problems...)
	if len(entries) == 0 {
		return nil, ErrNoEntryPoint
	}
	for _, e := range entries {
		c, err := b.buildCluster(ctx, e)
		if err != nil {
			return nil, err
		}
		res.Clusters = append(res.Clusters, c)
	}
	res.Unapplied = b.unapplied(res.Clusters)
	sortProblems(res.Problems)
	return res, nil
}

// treeBuilder builds one tree.
type treeBuilder struct {
	opts    Options
	tree    *sourcetree.Tree
	sources map[string]*sourcetree.Tree // other sources, by the name in Options.Sources
	builder *build.Builder
	read    map[*sourcetree.File]bool // files that any build has read
}

func (b *treeBuilder) close() error {
	errs := []error{b.tree.Close()}
	for _, t := range b.sources {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}

// parseAll parses every YAML file of the tree. It returns their problems and their number.
func (b *treeBuilder) parseAll(ctx context.Context) ([]*validators.Problem, int, error) {
	artifact := b.tree.Artifact("")
	paths := artifact.Manifests()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.opts.Workers)
	for _, p := range paths {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			artifact.File(p).Parse()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, 0, fmt.Errorf("reading the tree: %w", err)
	}
	var out []*validators.Problem
	for _, p := range paths {
		out = append(out, artifact.File(p).Parse().Problems...)
	}
	return out, len(paths), nil
}

func sortProblems(problems []*validators.Problem) {
	slices.SortStableFunc(problems, func(a, b *validators.Problem) int {
		return cmp.Or(cmp.Compare(a.Position.File, b.Position.File), cmp.Compare(a.Position.Line, b.Position.Line),
			cmp.Compare(a.Position.Column, b.Position.Column), cmp.Compare(a.Message, b.Message))
	})
}
