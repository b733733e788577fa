package kustomization

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/konfig"

	"github.com/flux-admission/flux-admission/internal/kustomization/bootstrap"
	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/internal/kustomization/entrypoint"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// ErrNoEntryPoint means that nothing in the tree defines where Flux starts to reconcile it.
var ErrNoEntryPoint = errors.New("no Flux entry point was found: no FluxInstance with spec.sync, no gotk-sync.yaml and no Kustomization beside its source")

// Options are the inputs of Build.
type Options struct {
	// Root is the directory of the tree.
	Root string
	// EntryPoints are directories relative to Root, each the entry point of a cluster. Empty means to find them.
	EntryPoints []string
	// Variables are values of variables that are not in Git. They are used where substituteFrom of a Kustomization
	// refers to an object that nothing in the tree provides.
	Variables map[string]string
	// Needed are the names of the Variables without which the tree would build otherwise: a name that no file of the tree contains is an error.
	Needed []string
	// Sources maps other sources to directories. A key is NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME; the most
	// specific one counts.
	Sources map[string]string
	// AllowRemoteBases lets kustomize fetch remote resources, over HTTP and with git. Otherwise they are left out and
	// reported.
	AllowRemoteBases bool
	// Mutate returns one of Flux's objects as the cluster's mutating webhooks change it, or nil when they do not. It
	// gets the name of the cluster, and must not change the object. Nil mutates nothing.
	Mutate func(cluster string, o *unstructured.Unstructured) *unstructured.Unstructured
	// Progress is called from several goroutines after each build, with the numbers of Kustomizations that are built and that
	// are known so far; nil for nobody.
	Progress func(built, known int)
	// Edited are the texts of files that are read as if they had been edited, by path relative to Root.
	Edited map[string][]byte
	// Limits bound what is read.
	Limits sourcetree.Limits
	// Workers is how many Kustomizations are built concurrently; default: the number of processors.
	Workers int
	// Built is called with the result while the files of the artifacts can still be read. Nil calls nothing.
	Built func(*Result) error
}

// Build builds a Git tree: every Flux Kustomization that its entry points lead to, and the objects that each of them
// applies. It returns ErrNoEntryPoint when there is no entry point, and an error when the tree cannot be listed, a
// given directory does not exist, or the context ends. Everything else that is wrong is in the result.
func Build(ctx context.Context, opts Options) (_ *Result, err error) {
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	t, err := sourcetree.OpenEdited(ctx, opts.Root, opts.Limits, opts.Edited)
	if err != nil {
		return nil, err
	}
	b := newTreeBuilder(opts, t)
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
	entries, problems, err := entrypoint.Find(t, absolute(opts.Root), opts.EntryPoints)
	if err != nil {
		return nil, err
	}
	res.Problems = append(res.Problems, problems...)
	if len(entries) == 0 {
		return nil, ErrNoEntryPoint
	}
	if err := b.buildClusters(ctx, res, entries, len(opts.EntryPoints) > 0); err != nil {
		return nil, err
	}
	for name := range opts.Sources {
		if _, used := b.usedSources.Load(name); !used {
			return nil, fmt.Errorf("source %s: %w", name, errUnusedSource(name, res.Clusters))
		}
	}
	var entryFiles []string
	for _, e := range entries {
		entryFiles = append(entryFiles, e.Position.File)
	}
	installed := bootstrap.Find(t, func(f *sourcetree.File) bool { return b.read[f] }, entryFiles...)
	for _, c := range res.Clusters {
		c.bootstrap = installed
	}
	if err := b.checkNeeded(); err != nil {
		return nil, err
	}
	res.Unapplied = b.unapplied(res.Clusters)
	b.addCommented(res)
	b.excuseTemplates(res.Problems)
	sortProblems(res.Problems)
	if opts.Built == nil {
		return res, nil
	}
	return res, opts.Built(res)
}

// errUnusedSource returns the error of a name in Options.Sources that is not the name of a source of the tree.
func errUnusedSource(name string, clusters []*Cluster) error {
	var known []string
	for _, c := range clusters {
		for _, k := range c.Kustomizations {
			if !slices.Contains(known, k.Source.Name) {
				known = append(known, k.Source.Name)
			}
		}
	}
	slices.Sort(known)
	text := "no Kustomization of the tree has a source of this name"
	if near := suggest.Nearest(name[strings.LastIndex(name, "/")+1:], known); near != "" {
		return fmt.Errorf("%s; did you mean %s?", text, near)
	}
	return fmt.Errorf("%s; the sources are %s", text, strings.Join(known, ", "))
}

// checkNeeded returns an error for a name in Options.Needed that no file of the tree or of its mapped sources contains as a variable.
func (b *treeBuilder) checkNeeded() error {
	if len(b.opts.Needed) == 0 {
		return nil
	}
	used := map[string]bool{}
	for _, t := range append([]*sourcetree.Tree{b.tree}, slices.Collect(maps.Values(b.sources))...) {
		a := t.Artifact("")
		for _, p := range a.Manifests() {
			text, err := a.File(p).Read()
			if err != nil {
				return nil //nolint:nilerr // it is reported as a problem, and may contain the variable
			}
			for _, m := range variableUse.FindAllSubmatch(text, -1) {
				used[string(m[1])] = true
			}
		}
	}
	for _, name := range b.opts.Needed {
		if used[name] {
			continue
		}
		text := fmt.Sprintf("variable %s: no file of the tree contains ${%s}", name, name)
		if near := suggest.Nearest(name, slices.Sorted(maps.Keys(used))); near != "" {
			text += "; did you mean " + near + "?"
		}
		return errors.New(text)
	}
	return nil
}

// treeBuilder builds one tree.
type treeBuilder struct {
	opts    Options
	tree    *sourcetree.Tree
	sources map[string]*sourcetree.Tree // other sources, by the name in Options.Sources
	// usedSources has the names in Options.Sources that are names of sources of the tree.
	usedSources sync.Map
	builder     *build.Builder
	read        map[*sourcetree.File]bool // files that any build has read

	// built and known count Kustomizations for Options.Progress.
	built, known atomic.Int64

	composeMu         sync.Mutex
	composedArtifacts map[composeKey]*composedArtifact
	included          map[includeKey]*sourcetree.Artifact
}

func newTreeBuilder(opts Options, t *sourcetree.Tree) *treeBuilder {
	return &treeBuilder{
		opts: opts, tree: t, sources: map[string]*sourcetree.Tree{}, read: map[*sourcetree.File]bool{},
		builder: build.NewBuilder(opts.AllowRemoteBases), composedArtifacts: map[composeKey]*composedArtifact{},
		included: map[includeKey]*sourcetree.Artifact{},
	}
}

// absolute returns the absolute path of a directory; the path itself when there is none.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// buildClusters builds a cluster for each entry point. An entry point of the kind Applied is left out where another one leads to its file, and is
// a further root of the cluster whose directory it holds.
func (b *treeBuilder) buildClusters(ctx context.Context, res *Result, entries []*entrypoint.EntryPoint, given bool) error {
	var explicit []*entrypoint.EntryPoint
	for _, e := range entries {
		if e.Kind != entrypoint.Applied {
			explicit = append(explicit, e)
		}
	}
	for _, e := range entries {
		at := -1
		if e.Kind == entrypoint.Applied && !given {
			if b.applies(e) {
				continue
			}
			at = slices.IndexFunc(res.Clusters, func(c *Cluster) bool { return within(c.Entry.Path, e.Path) || beside(c.roots, e) })
			sibling := slices.ContainsFunc(explicit, func(x *entrypoint.EntryPoint) bool { return path.Dir(x.Path) == path.Dir(e.Path) })
			if at < 0 && len(explicit) > 0 && !sibling {
				continue
			}
		}
		roots := []*entrypoint.EntryPoint{e}
		if at >= 0 {
			roots = append(slices.Clone(res.Clusters[at].roots), e)
		}
		c, err := b.buildCluster(ctx, roots)
		if err != nil {
			return err
		}
		if at >= 0 {
			res.Clusters[at] = c
		} else {
			res.Clusters = append(res.Clusters, c)
		}
		if note := rootNote(e); note != nil {
			res.Problems = append(res.Problems, note)
		}
	}
	return nil
}

// beside reports whether an entry point belongs to the cluster with the roots: the same file defines the source of both, which are two
// Kustomizations of one cluster then.
func beside(roots []*entrypoint.EntryPoint, e *entrypoint.EntryPoint) bool {
	own := e.SourcePosition()
	return own.File != "" && slices.ContainsFunc(roots, func(root *entrypoint.EntryPoint) bool {
		return root.Kind == entrypoint.Applied && root.SourcePosition() == own
	}) && !slices.ContainsFunc(roots, func(root *entrypoint.EntryPoint) bool { return root.Key == e.Key })
}

// applies reports whether a build has read the file of an entry point.
func (b *treeBuilder) applies(e *entrypoint.EntryPoint) bool {
	f := b.tree.Artifact("").FileNamed(e.Position.File)
	return f != nil && b.read[f]
}

// within reports whether a directory is another one or below it.
func within(dir, other string) bool {
	return dir == other || other == "." || strings.HasPrefix(dir, other+"/")
}

// rootNote returns what the reader has to know where the root of the source is not that of the tree.
func rootNote(e *entrypoint.EntryPoint) *validators.Problem {
	var p *validators.Problem
	switch {
	case e.From != "":
		p = problem(validators.ProblemRootAssumed, e.Position, "the path %s is in %s only: this directory is taken for the root of the source", e.Path, e.From)
		p.Name = e.From
	case e.Mount != "":
		p = problem(validators.ProblemRootAssumed, e.Position,
			"the paths of the Kustomizations start with %s: the tree is taken for that directory of its repository; open the repository's root to see all", e.Mount)
		p.Name = e.Mount
	}
	return p
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
	out := b.unreadDirectories()
	inputs := generatorInputs(artifact)
	for _, p := range paths {
		f := artifact.File(p)
		if inputs[p] {
			continue // text, whatever its name is
		}
		for _, problem := range f.Parse().Problems {
			// Values and settings files are read by programs that may accept a key twice.
			if problem.Kind != validators.ProblemDuplicateKey || hasObjects(f) {
				out = append(out, problem)
			}
		}
	}
	return out, len(paths), nil
}

// unreadDirectories returns a problem for each directory that cannot be listed.
func (b *treeBuilder) unreadDirectories() []*validators.Problem {
	var out []*validators.Problem
	unlisted := b.tree.Unlisted()
	for _, dir := range slices.Sorted(maps.Keys(unlisted)) {
		p := problem(validators.ProblemDirectoryUnread, validators.Position{}, "the directory %s cannot be listed: %v", dir, unlisted[dir])
		p.Name = dir
		out = append(out, p)
	}
	return out
}

// readAll reports whether everything in the directory that a Kustomization builds could be read.
func (b *treeBuilder) readAll(k *Kustomization) bool {
	if k.artifact == nil {
		return true
	}
	built, ok := k.artifact.TreePath(k.Path)
	for dir := range k.artifact.Tree().Unlisted() {
		if ok && within(dir, built) {
			return false
		}
	}
	return true
}

// templateMarks begin what Go templates, Jinja and ERB replace.
var templateMarks = [][]byte{[]byte("{{"), []byte("{%"), []byte("<%")}

// excuseTemplates marks the files that are not YAML because another tool renders them first: templates of Ansible, the files
// of a Helm chart. A file that a build has read has to be YAML as it is.
func (b *treeBuilder) excuseTemplates(problems []*validators.Problem) {
	a := b.tree.Artifact("")
	for i, p := range problems {
		f := a.FileNamed(p.Position.File)
		if p.Kind != validators.ProblemNotYAML || f == nil || b.read[f] {
			continue
		}
		if data, err := f.Read(); err == nil && slices.ContainsFunc(templateMarks, func(m []byte) bool { return bytes.Contains(data, m) }) {
			problems[i] = problem(validators.ProblemTemplate, p.Position, "the file is the template of another tool, and no Kustomization reads it")
		}
	}
}

// hasObjects reports whether a file has a Kubernetes object or a kustomization.
func hasObjects(f *sourcetree.File) bool {
	return slices.Contains(konfig.RecognizedKustomizationFileNames(), path.Base(f.Path())) ||
		slices.ContainsFunc(f.Parse().Documents, func(doc *yaml.Node) bool { return sourcetree.Identify(doc).IsObject() })
}

// generatorInputs returns the files that configMapGenerators and secretGenerators take as text, and nothing takes as resources.
func generatorInputs(a *sourcetree.Artifact) map[string]bool {
	inputs, resources := map[string]bool{}, map[string]bool{}
	for _, dir := range append([]string{"."}, a.Dirs()...) {
		file := build.File(a, dir)
		if file == "" {
			continue
		}
		add := func(to map[string]bool, n *yaml.Node) {
			if n == nil {
				return
			}
			eachScalar(n, func(text string) {
				if _, value, ok := strings.Cut(text, "="); ok {
					text = value
				}
				to[sourcetree.Rel(path.Join(dir, text))] = true
			})
		}
		for _, doc := range a.File(file).Parse().Documents {
			add(resources, yamlposition.Child(doc, "resources"))
			for _, field := range []string{"configMapGenerator", "secretGenerator"} {
				list := yamlposition.Child(doc, field)
				if list == nil {
					continue
				}
				for _, item := range list.Content {
					for _, from := range []string{"files", "envs", "env"} {
						add(inputs, yamlposition.Child(item, from))
					}
				}
			}
		}
	}
	maps.DeleteFunc(inputs, func(p string, _ bool) bool { return resources[p] })
	return inputs
}

func sortProblems(problems []*validators.Problem) {
	slices.SortStableFunc(problems, func(a, b *validators.Problem) int {
		return cmp.Or(cmp.Compare(a.Position.File, b.Position.File), cmp.Compare(a.Position.Line, b.Position.Line),
			cmp.Compare(a.Position.Column, b.Position.Column), cmp.Compare(a.Message, b.Message))
	})
}
