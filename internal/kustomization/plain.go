package kustomization

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/internal/kustomization/entrypoint"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// BuildWithoutFlux builds a tree that has no entry point: each kustomization.yaml that no other one refers to, as a
// cluster of its own, and the objects in files that no kustomization.yaml takes in. Nothing is known to be missing.
func BuildWithoutFlux(ctx context.Context, opts Options) (_ *Result, err error) {
	t, err := sourcetree.OpenEdited(ctx, opts.Root, opts.Limits, opts.Edited)
	if err != nil {
		return nil, err
	}
	b := newTreeBuilder(opts, t)
	defer func() { err = errors.Join(err, b.close()) }()
	if b.opts.Workers <= 0 {
		b.opts.Workers = 1
	}
	res := &Result{}
	if res.Problems, res.Files, err = b.parseAll(ctx); err != nil {
		return nil, err
	}
	if err := b.checkNeeded(); err != nil {
		return nil, err
	}
	a := t.Artifact("")
	used := usedBy(a)
	for _, dir := range append([]string{"."}, a.Dirs()...) {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("building %s: %w", dir, err)
		}
		file := build.File(a, dir)
		if file == "" || used[dir] || used[file] || a.InChart(file) || isComponent(a, file) {
			continue
		}
		c, problems, err := b.buildOutermost(a, dir)
		if err != nil {
			return nil, err
		}
		res.Clusters = append(res.Clusters, c)
		res.Problems = append(res.Problems, problems...)
	}
	plain := &Cluster{}
	names := definedNames(a)
	for _, p := range a.Manifests() {
		if !used[p] && !b.read[a.File(p)] && !a.InChart(p) {
			res.addObjects(plain, a, p, kustomized(a, p) || repeats(a, p, names))
		}
	}
	res.Clusters = append(res.Clusters, plain)
	for _, c := range res.Clusters {
		for _, o := range c.Objects {
			o.leaveVariables()
		}
	}
	b.addCommented(res)
	b.excuseTemplates(res.Problems)
	note := problem(validators.ProblemNoEntryPoint, validators.Position{}, "%s", noEntryPointText(t))
	res.Problems = append(res.Problems, note)
	sortProblems(res.Problems)
	return res, nil
}

// noEntryPointText is what was done instead, and what the user can give.
func noEntryPointText(t *sourcetree.Tree) string {
	text := "no Flux entry point was found; give the directory that Flux syncs with --entrypoint DIR"
	if dirs := entrypoint.Candidates(t); len(dirs) > 0 {
		text += ", such as " + strings.Join(dirs, ", ")
	}
	return text + "; evaluated what kustomize builds, and the objects beside it; looked for a FluxInstance with spec.sync, a " +
		"gotk-sync.yaml, and a Kustomization beside its source"
}

// buildOutermost builds a directory as kustomize does. A build that fails is not wrong: Flux may not build this directory, or not
// by itself. The problems are that it was not evaluated.
func (b *treeBuilder) buildOutermost(a *sourcetree.Artifact, dir string) (*Cluster, []*validators.Problem, error) {
	out, err := b.builder.Build(a, dir, &kustomizev1.KustomizationSpec{})
	if err != nil {
		return nil, nil, fmt.Errorf("building %s: %w", dir, err)
	}
	var problems []*validators.Problem
	for _, p := range out.Problems {
		if p.Kind == validators.ProblemBuildFailed {
			failed := problem(validators.ProblemNotBuilt, p.Position, "kustomize cannot build %s, which was not evaluated: %s", dir, p.Message)
			failed.Name = dir
			problems = append(problems, failed)
		}
	}
	for p := range out.Read {
		b.read[a.File(p)] = true
	}
	k := &Kustomization{artifact: a, output: out, Path: dir}
	c := &Cluster{Name: dir}
	for i := range out.Objects {
		if out.Objects[i].Err != nil {
			continue
		}
		o := newBuiltObject(k, &out.Objects[i])
		// A Kustomization that is not known may patch it further.
		o.outermost, o.Kustomization, o.mayBePatch = k, nil, true
		o.findUnknownContent()
		o.findEncrypted()
		if !foreign(o.GetAPIVersion(), o.GetKind()) {
			c.Objects = append(c.Objects, o)
		}
	}
	return c, problems, nil
}

// leaveVariables marks the fields with variables as unresolved, with a default or not: what substitutes them is not known.
func (o *Object) leaveVariables() {
	o.Unresolved = appendFields(o.Unresolved, o.Object, nil, unresolved.HasVariable)
}

// MayBePatch reports whether the object may be a patch, in which fields are missing on purpose.
func (o *Object) MayBePatch() bool { return o.mayBePatch }

// kustomized reports whether a directory of the file, or one above, has a kustomization file: the file may be a patch.
func kustomized(a *sourcetree.Artifact, p string) bool {
	return nearestKustomization(a, p) != "" || strings.Contains(path.Base(p), "patch")
}

// definedNames counts the documents of the tree by their kind and name.
func definedNames(a *sourcetree.Artifact) map[string]int {
	out := map[string]int{}
	for _, p := range a.Manifests() {
		for _, doc := range a.File(p).Parse().Documents {
			id := sourcetree.Identify(doc)
			out[id.Kind+"/"+id.Name]++
		}
	}
	return out
}

// repeats reports whether a file has an object that another document has, too: one of them may be a patch of the other.
func repeats(a *sourcetree.Artifact, p string, names map[string]int) bool {
	return slices.ContainsFunc(a.File(p).Parse().Documents, func(doc *yaml.Node) bool {
		id := sourcetree.Identify(doc)
		return names[id.Kind+"/"+id.Name] > 1
	})
}

// isComponent reports whether a kustomization file is of a component, which is no build of its own.
func isComponent(a *sourcetree.Artifact, file string) bool {
	doc := a.File(file).Parse().First()
	return doc != nil && sourcetree.Identify(doc).Kind == "Component"
}

// usedBy returns the files and directories that the kustomization files of a tree refer to in any field or comment, as
// for a patch that is switched on when it is needed, and all that is below the directories of components.
func usedBy(a *sourcetree.Artifact) map[string]bool {
	used := map[string]bool{}
	var components []string
	for _, dir := range append([]string{"."}, a.Dirs()...) {
		file := build.File(a, dir)
		if file == "" {
			continue
		}
		if isComponent(a, file) {
			components = append(components, dir)
		}
		for _, p := range commentedEntries(a.File(file), dir) {
			if a.File(p) != nil {
				used[p] = true
			}
		}
		for _, doc := range a.File(file).Parse().Documents {
			eachScalar(doc, func(text string) {
				if _, value, ok := strings.Cut(text, "="); ok && !strings.Contains(value, "\n") {
					text = value
				}
				if text == "" || text == "." || strings.ContainsAny(text, "\n") {
					return
				}
				if p := sourcetree.Rel(path.Join(dir, text)); p != dir && (a.File(p) != nil || a.IsDir(p)) {
					used[p] = true
				}
			})
		}
	}
	for _, p := range a.Manifests() {
		if slices.ContainsFunc(components, func(dir string) bool { return within(path.Dir(p), dir) }) {
			used[p] = true
		}
	}
	return used
}

// eachScalar calls do with each scalar value of a document.
func eachScalar(n *yaml.Node, do func(string)) {
	n = yamlposition.Root(n)
	if n == nil {
		return
	}
	if n.Kind == yaml.ScalarNode {
		do(n.Value)
	}
	for i, c := range n.Content {
		if n.Kind != yaml.MappingNode || i%2 == 1 {
			eachScalar(c, do)
		}
	}
}

// foreignGroups are API groups of documents that are configuration of a program, and never sent to an API server.
var foreignGroups = []string{
	"apiserver.config.k8s.io", "apiserver.k8s.io", "audit.k8s.io", "backstage.io", "chainsaw.kyverno.io", "cli.kyverno.io", "config.kubernetes.io",
	"ctlptl.dev", "dashboard.grafana.app", "eksctl.io", "k0sctl.k0sproject.io", "k3d.io", "kind.x-k8s.io", "kpt.dev", "kubeadm.k8s.io", "kubelet.config.k8s.io",
	"kubeproxy.config.k8s.io", "kubescheduler.config.k8s.io", "kustomize.config.k8s.io", "kuttl.dev",
}

// foreign reports whether a document is no Kubernetes object although it has an apiVersion and a kind: the core group has
// only v1, and groups without a dot are Kubernetes' own.
func foreign(apiVersion, kind string) bool {
	group, _, grouped := strings.Cut(apiVersion, "/")
	switch {
	case !grouped:
		return apiVersion != "v1" || kind == "Config"
	case !strings.Contains(group, "."):
		return !slices.Contains([]string{"apps", "batch", "autoscaling", "policy", "extensions"}, group)
	}
	return slices.Contains(foreignGroups, group)
}

// nearestKustomization returns the nearest kustomization file, in the file's directory or above; empty when there is
// none.
func nearestKustomization(a *sourcetree.Artifact, p string) string {
	for d := path.Dir(p); ; d = path.Dir(d) {
		if file := build.File(a, d); file != "" {
			return file
		}
		if d == "." {
			return ""
		}
	}
}
