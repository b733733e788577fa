package kustomization

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	fluxssa "github.com/fluxcd/pkg/ssa/utils"

	"github.com/flux-admission/flux-admission/validators"
)

// ErrNoEntryPoint says that nothing in the tree tells where Flux starts to read it.
var ErrNoEntryPoint = errors.New("no Flux entry point: the tree has no FluxInstance with spec.sync and no gotk-sync.yaml; name the directory that Flux syncs, or check the files as plain manifests")

// maxRenders bounds how often one Kustomization is rendered again because what it depends on was found later: another Kustomization's
// ConfigMap, or its own definition with a patch.
const maxRenders = 4

// Options say what to render.
type Options struct {
	// Root is the directory of the tree.
	Root string
	// EntryPoints are directories relative to Root, each of them a cluster's entry point. Empty means to find them.
	EntryPoints []string
	// Vars are values of variables that are not in Git. They fill in where a Kustomization's substituteFrom names an object that nothing in
	// the tree provides.
	Vars map[string]string
	// Sources maps other sources to directories. A key is NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME; the most specific one counts.
	Sources map[string]string
	// AllowRemoteBases lets kustomize fetch remote resources, over HTTP and by running git. Otherwise they are left out and reported.
	AllowRemoteBases bool
	// LenientVariables makes a variable without a value the empty string, as Flux before 2.9 does by default.
	LenientVariables bool
	// Amend returns what the cluster makes of one of Flux's objects when it is applied, or nil to leave it: a mutating webhook may fill in a field. It is
	// given the name of the cluster and must not change the object; nil amends nothing.
	Amend func(cluster string, o *unstructured.Unstructured) *unstructured.Unstructured
	// Limits bound what is read.
	Limits Limits
	// Workers is how many Kustomizations are built at a time; default: the number of processors.
	Workers int
}

// Tree renders a Git tree: every Flux Kustomization that its entry points lead to, and the objects that each of them applies. It returns
// ErrNoEntryPoint when there is no entry point, and an error when the tree cannot be listed, a given directory does not exist, or the
// context ends. Everything else that is wrong is in the result.
func Tree(ctx context.Context, opts Options) (_ *Result, err error) {
	opts.Limits = opts.Limits.withDefaults()
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	t, err := openTree(ctx, opts.Root, "", opts.Limits)
	if err != nil {
		return nil, err
	}
	r := &renderer{opts: opts, tree: t, mapped: map[string]*tree{}, outputs: map[outputKey]*cached{}, read: map[*tree]map[string]bool{t: {}}}
	defer func() { err = errors.Join(err, r.close()) }()
	for name, dir := range opts.Sources {
		m, err := openTree(ctx, dir, name+":", opts.Limits)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", name, err)
		}
		r.mapped[name] = m
		r.read[m] = map[string]bool{}
	}
	res := &Result{}
	if res.Problems, res.Files, err = r.parseAll(ctx); err != nil {
		return nil, err
	}
	entries, problems, err := entryPoints(t.view(""), opts.EntryPoints)
	if err != nil {
		return nil, err
	}
	res.Problems = append(res.Problems, problems...)
	if len(entries) == 0 {
		return nil, ErrNoEntryPoint
	}
	loadSchemas()
	for _, e := range entries {
		c, err := r.cluster(ctx, e)
		if err != nil {
			return nil, err
		}
		res.Clusters = append(res.Clusters, c)
	}
	res.Unapplied = r.orphans(res.Clusters)
	sortProblems(res.Problems)
	return res, nil
}

type outputKey struct {
	view      *view
	dir, spec string
}

type cached struct {
	once sync.Once
	out  *output
}

// renderer renders one tree.
type renderer struct {
	opts   Options
	tree   *tree
	mapped map[string]*tree

	mu      sync.Mutex
	outputs map[outputKey]*cached
	read    map[*tree]map[string]bool // files that any build has read
}

func (r *renderer) close() error {
	errs := []error{r.tree.close()}
	for _, t := range r.mapped {
		errs = append(errs, t.close())
	}
	return errors.Join(errs...)
}

// parseAll parses every YAML file of the tree and returns what is wrong with them.
func (r *renderer) parseAll(ctx context.Context) ([]*Problem, int, error) {
	var names []string
	for p := range r.tree.view("").files {
		if isYAMLName(p) && !r.tree.isTemplate(p) {
			names = append(names, p)
		}
	}
	slices.Sort(names)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Workers)
	for _, p := range names {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			r.tree.files[p].document()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, 0, fmt.Errorf("reading the tree: %w", err)
	}
	var out []*Problem
	for _, p := range names {
		out = append(out, r.tree.files[p].document().problems...)
	}
	return out, len(names), nil
}

// world is a cluster while it is rendered.
type world struct {
	*renderer
	entry   *EntryPoint
	known   map[types.NamespacedName]*Kustomization
	order   []*Kustomization
	pending []*Kustomization
	// objects are those that variables and sources are looked up in: ConfigMaps, Secrets and sources that have been rendered.
	objects map[validators.ObjectRef]*Object
	unknown map[validators.ObjectRef]bool // sources that were said to be unknown
}

func (r *renderer) cluster(ctx context.Context, e *EntryPoint) (*Cluster, error) {
	w := &world{renderer: r, entry: e, known: map[types.NamespacedName]*Kustomization{}, objects: map[validators.ObjectRef]*Object{}, unknown: map[validators.ObjectRef]bool{}}
	for _, o := range e.objects {
		w.objects[refOf(o)] = o
	}
	w.add(e.objects[0])
	for {
		if err := w.drain(ctx); err != nil {
			return nil, fmt.Errorf("rendering %s: %w", e.Path, err)
		}
		if !w.again() {
			break
		}
	}
	return w.finish(), nil
}

func refOf(o *Object) validators.ObjectRef {
	gvk := o.GroupVersionKind()
	return validators.ObjectRef{Group: gvk.Group, Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

// add makes a Kustomization of an object and plans to render it.
func (w *world) add(o *Object) *Kustomization {
	k := &Kustomization{Key: types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, Object: o}
	w.known[k.Key] = k
	w.order = append(w.order, k)
	w.pending = append(w.pending, k)
	return k
}

func (w *world) plan(k *Kustomization) {
	if !slices.Contains(w.pending, k) {
		w.pending = append(w.pending, k)
	}
}

// drain renders what is planned, in waves: first those whose variables are all there, and when there are none of these, the others.
func (w *world) drain(ctx context.Context) error {
	for len(w.pending) > 0 {
		var now, later []*Kustomization
		for _, k := range w.pending {
			if w.ready(k) {
				now = append(now, k)
			} else {
				later = append(later, k)
			}
		}
		if len(now) == 0 {
			now, later = later, nil
			for _, k := range now {
				k.forced = true
			}
		}
		w.pending = later
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(w.opts.Workers)
		for _, k := range now {
			g.Go(func() error {
				if err := gctx.Err(); err != nil {
					return err
				}
				w.render(k)
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for _, k := range now {
			w.merge(k)
		}
	}
	return nil
}

// ready tells whether all that the Kustomization substitutes from has been rendered. The spec is read on the way.
func (w *world) ready(k *Kustomization) bool {
	if k.readSpec() != nil || k.Spec.PostBuild == nil {
		return true
	}
	for _, ref := range k.Spec.PostBuild.SubstituteFrom {
		if w.variablesObject(ref.Kind, types.NamespacedName{Namespace: k.Key.Namespace, Name: ref.Name}) == nil {
			return false
		}
	}
	return true
}

func (w *world) variablesObject(kind string, key types.NamespacedName) *Object {
	return w.objects[validators.ObjectRef{Kind: kind, Namespace: key.Namespace, Name: key.Name}]
}

// readSpec decodes the spec and fills in what follows from it.
func (k *Kustomization) readSpec() error {
	var typed kustomizev1.Kustomization
	spec, _ := k.Object.Object["spec"].(map[string]any)
	if err := apiruntime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"spec": spec}, &typed); err != nil {
		return fmt.Errorf("reading the spec: %w", err)
	}
	k.Spec = typed.Spec
	k.Path = rel(k.Spec.Path)
	s := k.Spec.SourceRef
	k.Source = validators.ObjectRef{Group: sourceGroup, Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}
	if k.Source.Namespace == "" {
		k.Source.Namespace = k.Key.Namespace
	}
	return nil
}

// render builds one Kustomization and substitutes in its objects. It changes nothing but the Kustomization.
func (w *world) render(k *Kustomization) {
	defer func() {
		// The libraries below are known to panic on input that they did not expect; one Kustomization must not take the others with it.
		if r := recover(); r != nil {
			k.State, k.Objects = Unseen, nil
			k.report(&Problem{Kind: BuildFailed, Message: fmt.Sprintf("the build fails: %s: %v", recovered, r), Detail: string(debug.Stack())})
		}
	}()
	k.renders++
	k.Objects, k.Problems, k.MissingVariables, k.State, k.out, k.vars = nil, nil, nil, Unseen, nil, nil
	if err := k.readSpec(); err != nil {
		k.report(&Problem{Kind: SpecInvalid, Path: validators.NewPath("spec"), Message: "the spec of the Kustomization cannot be read", Detail: redact(err.Error())})
		return
	}
	k.view = w.source(k)
	if k.view == nil {
		return
	}
	if !k.view.isDir(k.Path) {
		w.pathMissing(k)
		return
	}
	k.out = w.build(k)
	if k.out == nil {
		return
	}
	for _, p := range k.out.problems {
		own := *p
		k.report(&own)
	}
	if k.out.blind {
		return
	}
	k.State = Built
	w.objectsOf(k)
	for _, p := range k.Problems {
		if p.Kind == RemoteBase {
			k.State = min(k.State, Partial)
		}
		if p.fails() {
			k.State = min(k.State, Repaired)
		}
	}
}

// recovered starts the message of what should not have happened.
const recovered = "recovered from panic"

// report adds a problem. Without a place of its own it is put where the Kustomization's own field stands.
func (k *Kustomization) report(p *Problem) {
	p.Kustomization = k
	if p.Position.File == "" {
		p.Position = k.Object.Locate(p.Path).Position
	}
	k.Problems = append(k.Problems, p)
}

func (w *world) pathMissing(k *Kustomization) {
	p := &Problem{Kind: PathMissing, Path: validators.NewPath("spec", "path"), Name: k.Spec.Path}
	if _, isFile := k.view.files[k.Path]; isFile {
		p.Kind, p.Message = BuildFailed, fmt.Sprintf("the path %s is a file, not a directory", k.Spec.Path)
	} else {
		p.Near = k.view.nearDir(k.Path)
		p.Message = fmt.Sprintf("the path %s does not exist: %s", k.Spec.Path, k.view.explainMissing(k.Path))
	}
	k.report(p)
}

// build returns what kustomize makes of the Kustomization's directory. The same directory with the same settings is built once, however
// many clusters share it.
func (w *world) build(k *Kustomization) *output {
	s := k.Spec
	spec, err := json.Marshal([]any{s.TargetNamespace, s.NamePrefix, s.NameSuffix, s.Patches, s.Components, s.IgnoreMissingComponents, s.Images, s.BuildMetadata})
	if err != nil {
		k.report(&Problem{Kind: SpecInvalid, Path: validators.NewPath("spec"), Message: "the spec of the Kustomization cannot be read", Detail: redact(err.Error())})
		return nil
	}
	key := outputKey{k.view, k.Path, string(spec)}
	w.mu.Lock()
	c := w.outputs[key]
	if c == nil {
		c = &cached{}
		w.outputs[key] = c
	}
	w.mu.Unlock()
	c.once.Do(func() {
		g, problem := generate(k.view, k.Path, &k.Spec)
		if problem != nil {
			c.out = &output{reach: &reach{view: k.view}, problems: []*Problem{problem}, blind: true}
			return
		}
		c.out = build(k.view, k.Path, g, w.opts.AllowRemoteBases)
	})
	return c.out
}

// objectsOf makes the objects that a Kustomization applies of those that kustomize made.
func (w *world) objectsOf(k *Kustomization) {
	if k.Spec.PostBuild != nil {
		k.vars = gather(k, w.variablesObject, w.opts.Vars)
		k.MissingVariables = k.vars.missing
		if k.vars.invalid != "" && len(k.out.objects) > 0 {
			k.report(&Problem{Kind: BuildFailed, Path: validators.NewPath("spec", "postBuild"), Name: k.vars.invalid,
				Message: fmt.Sprintf("the variable name %q is invalid: it may hold letters, digits and underscores", k.vars.invalid)})
		}
	}
	unset := map[string]bool{}
	for i := range k.out.objects {
		m := &k.out.objects[i]
		o := &Object{Kustomization: k, view: k.view, out: k.out, Unstructured: &unstructured.Unstructured{Object: m.object}}
		o.Origin = Origin{Document: m.doc, Generated: m.generator != ""}
		if m.file != "" {
			o.Origin.File = k.view.tree.label + m.file
		}
		if m.item >= 0 {
			o.within = validators.NewPath("items").Index(m.item)
		}
		if m.err != nil {
			k.report(&Problem{Kind: BuildFailed, Position: o.Locate(nil).Position, Message: "an object cannot be written as JSON: " + redact(m.err.Error())})
			continue
		}
		w.substitute(k, o, unset)
		w.decrypt(k, o)
		o.findUnknown()
		if c := k.Spec.CommonMetadata; c != nil {
			o.Object, _ = deepCopy(o.Object).(map[string]any)
			fluxssa.SetCommonMetadata([]*unstructured.Unstructured{o.Unstructured}, c.Labels, c.Annotations)
		}
		k.Objects = append(k.Objects, o)
	}
}

const substituteKey = kustomizationGroup + "/substitute"

func (w *world) substitute(k *Kustomization, o *Object, reported map[string]bool) {
	if k.vars == nil || !k.vars.runs() || k.vars.invalid != "" {
		return
	}
	if o.GetLabels()[substituteKey] == "disabled" || o.GetAnnotations()[substituteKey] == "disabled" {
		return
	}
	s := k.vars.substitute(o.Object, w.opts.LenientVariables)
	if s.err != nil {
		k.report(&Problem{Kind: BuildFailed, Object: o, Position: o.Locate(nil).Position, Message: fmt.Sprintf("%s: %v", o, s.err)})
		return
	}
	for _, name := range s.unset {
		place := o.textPlace("${" + name)
		if id := name + " " + place.String(); !reported[id] {
			reported[id] = true
			k.report(&Problem{Kind: VariableUnset, Object: o, Position: place, Name: name, Near: near(name, sortedKeys(k.vars.known)),
				Message: fmt.Sprintf("the variable %s has no value and no default", name)})
		}
	}
	o.Object, o.Unknown = s.object, s.unknown
}

// decrypt does to an encrypted object what can be done without its key: leave out what SOPS has added.
func (w *world) decrypt(k *Kustomization, o *Object) {
	sops, ok := o.Object["sops"].(map[string]any)
	if _, mac := sops["mac"]; !ok || !mac {
		return
	}
	o.Encrypted = true
	if k.Spec.Decryption == nil {
		k.report(&Problem{Kind: DecryptionMissing, Object: o, Path: validators.NewPath("spec", "decryption"), Position: o.Locate(validators.NewPath("sops")).Position,
			Message: fmt.Sprintf("%s is encrypted with SOPS, and the Kustomization %s has no spec.decryption", o, k.Key)})
		return
	}
	plain := make(map[string]any, len(o.Object))
	for key, value := range o.Object {
		if key != "sops" {
			plain[key] = value
		}
	}
	o.Object = plain
}

// findUnknown adds the fields that hold an encrypted value.
func (o *Object) findUnknown() {
	if _, ok := o.Object["sops"].(map[string]any); ok {
		o.Encrypted = true
	}
	var walk func(v any, at validators.Path)
	walk = func(v any, at validators.Path) {
		switch v := v.(type) {
		case string:
			if isEncrypted(v) {
				o.Unknown = append(o.Unknown, at)
			}
		case map[string]any:
			for _, key := range sortedKeys(v) {
				walk(v[key], at.Child(key))
			}
		case []any:
			for i, e := range v {
				walk(e, at.Index(i))
			}
		}
	}
	if o.Encrypted {
		walk(o.Object, nil)
	}
}

// source returns the view that the Kustomization builds from; nil when its source is not here, which is said once for each source.
func (w *world) source(k *Kustomization) *view {
	for _, name := range []string{k.Source.Kind + "/" + k.Source.Namespace + "/" + k.Source.Name, k.Source.Namespace + "/" + k.Source.Name, k.Source.Name} {
		if t := w.mapped[name]; t != nil {
			return t.view("")
		}
	}
	k.SourceAssumed = false
	if k.Source == w.entry.Source || k == w.order[0] {
		return w.tree.view(w.entry.ignore)
	}
	if o := w.objects[k.Source]; o != nil {
		url, _, _ := unstructured.NestedString(o.Object, "spec", "url")
		if sameURL(url, w.entry.URL) {
			ignore, _, _ := unstructured.NestedString(o.Object, "spec", "ignore")
			return w.tree.view(ignore)
		}
		return nil
	}
	if k.Source.Name == w.entry.Source.Name || w.entry.Source.Name == "" {
		k.SourceAssumed = true
		return w.tree.view(w.entry.ignore)
	}
	return nil
}

// merge takes over what a Kustomization renders: objects to look up, and further Kustomizations.
func (w *world) merge(k *Kustomization) {
	if k.out != nil {
		for p := range k.out.read {
			w.read[k.view.tree][p] = true
		}
	}
	k.Children = nil
	for _, o := range k.Objects {
		gvk := o.GroupVersionKind()
		if w.opts.Amend != nil && strings.HasSuffix(gvk.Group, fluxGroups) {
			if amended := w.opts.Amend(w.entry.Path, o.Unstructured); amended != nil {
				o.Unstructured = amended
			}
		}
		switch {
		case gvk.Group == "" && (gvk.Kind == "ConfigMap" || gvk.Kind == "Secret"), gvk.Group == sourceGroup:
			w.objects[refOf(o)] = o
		case gvk.Group == kustomizationGroup && gvk.Kind == "Kustomization" && !k.RemoteCluster():
			w.child(k, o)
		}
	}
}

func (w *world) child(parent *Kustomization, o *Object) {
	key := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
	known := w.known[key]
	if known == nil {
		if w.entry.Source.Name == "" {
			// Only a directory was given: the first Kustomization in it says which source the tree is.
			c := &Kustomization{Key: key, Object: o}
			if c.readSpec() == nil {
				w.entry.Source = c.Source
			}
		}
		known = w.add(o)
	} else if known.Object.Kustomization == parent || known.Object.Kustomization == nil {
		// What is applied last counts: the entry point's own Kustomization may be applied again, with patches.
		changed := !reflect.DeepEqual(known.Object.Object["spec"], o.Object["spec"])
		known.Object = o
		if changed && known.renders < maxRenders {
			w.plan(known)
		}
	}
	if !slices.Contains(parent.Children, known) {
		parent.Children = append(parent.Children, known)
	}
}

// again plans to render those again for which something has appeared since; it tells whether there are any.
func (w *world) again() bool {
	for _, k := range w.order {
		if k.renders == 0 || k.renders >= maxRenders {
			continue
		}
		changed := k.view != w.source(k)
		for _, ref := range k.MissingVariables {
			changed = changed || w.objects[ref] != nil
		}
		if changed {
			w.plan(k)
		}
	}
	return len(w.pending) > 0
}

// finish makes the cluster: only what is still reachable, with parents, problems in order and what the entry point brings.
func (w *world) finish() *Cluster {
	c := &Cluster{Name: w.entry.Path, Entry: w.entry, Complete: true}
	reachable := map[*Kustomization]bool{}
	var visit func(k *Kustomization)
	visit = func(k *Kustomization) {
		if reachable[k] {
			return
		}
		reachable[k] = true
		for _, child := range k.Children {
			visit(child)
		}
	}
	visit(w.order[0])
	applied := map[validators.ObjectRef]bool{}
	for _, k := range w.order {
		if !reachable[k] {
			continue
		}
		c.Kustomizations = append(c.Kustomizations, k)
		for _, child := range k.Children {
			child.Parents = append(child.Parents, k)
		}
		for _, o := range k.Objects {
			applied[refOf(o)] = true
		}
		c.Objects = append(c.Objects, k.Objects...)
	}
	for _, k := range c.Kustomizations {
		w.sourceUnknown(c, k)
		sortProblems(k.Problems)
		if k.State == Unseen {
			c.Complete = false
		}
	}
	for _, o := range w.entry.objects {
		if w.entry.Kind == entryDirectory && o.GetKind() == "Kustomization" {
			continue // made up: what creates it is not in the tree
		}
		if !applied[refOf(o)] {
			c.Objects = append(c.Objects, o)
		}
	}
	return c
}

func (w *world) sourceUnknown(c *Cluster, k *Kustomization) {
	if k.view != nil || w.unknown[k.Source] || k.renders == 0 || len(k.Problems) > 0 {
		return
	}
	w.unknown[k.Source] = true
	n := 0
	for _, other := range c.Kustomizations {
		if other.view == nil && other.Source == k.Source {
			n++
		}
	}
	name := fmt.Sprintf("%s %s", k.Source.Kind, slashed(k.Source.Namespace, k.Source.Name))
	k.report(&Problem{Kind: SourceUnknown, Name: name, Path: validators.NewPath("spec", "sourceRef"),
		Message: fmt.Sprintf("the source %s is not this tree and was not mapped to a directory: %d Kustomizations from it were not rendered", name, n)})
}

// Manifests reads plain manifests: the YAML files of a directory, with places relative to it, or one file, with the name as it is given. There
// is one cluster, without Kustomizations; it is not complete, since what is not there may be anywhere.
func Manifests(ctx context.Context, name string, limits Limits) (_ *Result, err error) {
	limits = limits.withDefaults()
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	if !info.IsDir() {
		return manifestFile(name, limits)
	}
	t, err := openTree(ctx, name, "", limits)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	res := &Result{}
	c := &Cluster{}
	v := t.view("")
	for _, p := range sortedKeys(v.files) {
		if !isYAMLName(p) || t.isTemplate(p) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("reading %s: %w", p, err)
		}
		res.Files++
		v.manifests(c, res, p)
	}
	res.Clusters = []*Cluster{c}
	return res, nil
}

func manifestFile(name string, limits Limits) (_ *Result, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// One byte more than the limit, so that Stream sees that it is too much.
	data, err := io.ReadAll(io.LimitReader(f, limits.FileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return Stream(data, filepath.ToSlash(name), limits), nil
}

// Stream reads plain manifests from the text of a YAML stream, as Manifests does. Name stands for the file in places: "-" or "stdin".
func Stream(data []byte, name string, limits Limits) *Result {
	limits = limits.withDefaults()
	f := &file{path: name, data: data, tree: &tree{limits: limits, files: map[string]*file{}}}
	f.load.Do(func() {
		if int64(len(data)) > limits.FileBytes {
			f.data, f.err = nil, &refusedError{fmt.Sprintf("it is larger than %d bytes", limits.FileBytes)}
		}
	})
	v := &view{tree: f.tree, files: map[string]*file{name: f}, dirs: map[string][]string{}}
	res := &Result{Files: 1}
	c := &Cluster{}
	v.manifests(c, res, name)
	res.Clusters = []*Cluster{c}
	return res
}

// manifests adds the objects of a file as they stand there.
func (v *view) manifests(c *Cluster, res *Result, p string) {
	d := v.files[p].document()
	res.Problems = append(res.Problems, d.problems...)
	for i := range d.docs {
		o := v.fileObject(p, i)
		if o == nil {
			continue
		}
		if !strings.HasSuffix(o.GetKind(), "List") || !o.IsList() {
			c.Objects = append(c.Objects, o)
			continue
		}
		items, _ := o.Object["items"].([]any)
		for n, item := range items {
			if m, ok := item.(map[string]any); ok {
				each := &Object{Unstructured: &unstructured.Unstructured{Object: m}, Origin: o.Origin, view: v, within: validators.NewPath("items").Index(n)}
				each.findUnknown()
				c.Objects = append(c.Objects, each)
			}
		}
	}
}
