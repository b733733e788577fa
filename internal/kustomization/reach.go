package kustomization

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	kustypes "sigs.k8s.io/kustomize/api/types"
)

// kustRead is a file read as a kustomization, strictly, as kustomize does.
type kustRead struct {
	k   *kustypes.Kustomization
	err error
}

func (f *file) kustomization() *kustRead {
	f.kust.Do(func() {
		f.kustRead = &kustRead{}
		data, err := f.content()
		if err != nil {
			f.kustRead.err = err
			return
		}
		defer func() {
			if r := recover(); r != nil {
				f.kustRead.err = fmt.Errorf("%s while parsing: %v", recovered, r)
			}
		}()
		k := &kustypes.Kustomization{}
		f.kustRead.err = k.Unmarshal(data)
		f.kustRead.k = k
	})
	return f.kustRead
}

// step is one kustomization file that takes part in a build.
type step struct {
	dir, file string
	doc       *yaml.Node // the file as it is in the tree; nil when Flux made it up
	k         *kustypes.Kustomization
	parents   []*step
	children  []*step // resources that are directories, then components, in their order
	component bool
	files     map[string]bool // resource files listed by this very file
	entries   []resourceEntry // resources, then components, in kustomize's order
}

// resourceEntry is one resource or component of a step: a file, or another step.
type resourceEntry struct {
	file string
	sub  *step
}

// reach is everything that a build will read, found before kustomize is asked: it keeps remote addresses from being fetched, names a
// missing file with the line that lists it, and knows afterwards which kustomization could have changed which object.
type reach struct {
	view     *view
	root     *step
	top      *kustypes.Kustomization // the root's file as it is built from
	steps    map[string]*step
	written  map[string][]byte
	problems []*Problem
	remote   bool // allowed to use remote bases
	// openapi: some kustomization replaces kustomize's schemas, which are global to the process.
	openapi bool
	// plugins: generators and transformers of other kinds than kustomize's fields; what they make cannot be foreseen.
	plugins bool
	// blocked: a remote address that cannot be cut out; there is no build.
	blocked bool
}

// newReach follows the generated kustomization through the view.
func newReach(v *view, dir string, g *generated, allowRemote bool) *reach {
	r := &reach{view: v, steps: map[string]*step{}, written: map[string][]byte{}, remote: allowRemote}
	r.root = &step{dir: dir, file: g.file, k: g.k, files: map[string]bool{}}
	if g.own {
		r.root.doc = firstDoc(v.files[g.file])
	}
	r.steps[dir] = r.root
	// What is built from may differ from what the file says: entries may be cut out.
	k := *g.k
	k.Resources, k.Components, k.Bases = slices.Clone(k.Resources), slices.Clone(k.Components), slices.Clone(k.Bases)
	r.follow(r.root, &k)
	r.top = &k
	r.write(g.file, &k)
	return r
}

func firstDoc(f *file) *yaml.Node {
	if docs := f.document().docs; len(docs) > 0 {
		return docs[0]
	}
	return nil
}

func (r *reach) write(p string, k *kustypes.Kustomization) {
	data, err := json.Marshal(k) // JSON is YAML, and quicker to write
	if err != nil {
		// The struct was read from YAML; that it cannot be written again is a failure of the build.
		r.fail(&Problem{Kind: BuildFailed, Position: r.view.tree.place(p, 0, 0), Message: "the kustomization cannot be written as JSON", Detail: err.Error()})
		return
	}
	r.written[p] = data
}

func (r *reach) fail(p *Problem) { r.problems = append(r.problems, p) }

// follow walks into what the kustomization k of the step refers to, and cuts entries out of k that cannot be built.
func (r *reach) follow(s *step, k *kustypes.Kustomization) {
	if len(k.OpenAPI) > 0 {
		r.openapi = true
	}
	r.screen(s, k)
	k.Resources = r.entries(s, "resources", k.Resources, false)
	k.Bases = r.entries(s, "bases", k.Bases, false)
	k.Components = r.entries(s, "components", k.Components, true)
	if len(k.Resources)+len(k.Bases)+len(k.Components) == 0 && len(k.BuildMetadata) == 0 {
		k.BuildMetadata = []string{kustypes.OriginAnnotations} // kustomize refuses an empty file; this field does nothing in an included one
	}
}

// entries returns the entries of a list that kustomize can go on with.
func (r *reach) entries(s *step, field string, list []string, components bool) []string {
	out := list[:0]
	for i, entry := range list {
		if r.entry(s, field, i, entry, components) {
			out = append(out, entry)
		}
	}
	return out
}

func (r *reach) entry(s *step, field string, index int, entry string, component bool) bool {
	place := r.entryPlace(s, field, index, entry)
	if isRemote(entry) {
		if r.remote {
			return true
		}
		address := redactURL(entry)
		r.fail(&Problem{Kind: RemoteBase, Name: address, Position: place, Message: fmt.Sprintf("the remote resource %s was not evaluated", address)})
		return false
	}
	p := path.Join(s.dir, entry)
	if path.IsAbs(entry) {
		p = rel(entry)
	}
	if f := r.view.files[p]; f != nil && !component {
		s.files[p] = true
		if !r.resourceFile(f) {
			return false
		}
		s.entries = append(s.entries, resourceEntry{file: p})
		return true
	}
	if !r.view.isDir(p) {
		problem := &Problem{Kind: BuildFailed, Name: entry, Position: place,
			Message: fmt.Sprintf("the build fails: %s lists %s, but %s", path.Base(s.file), entry, r.view.explainMissing(p))}
		problem.Near = r.nearEntry(s.dir, p)
		r.fail(problem)
		return false
	}
	kf := r.view.kustomizationFile(p)
	if kf == "" {
		r.fail(&Problem{Kind: BuildFailed, Name: entry, Position: place,
			Message: fmt.Sprintf("the build fails: %s lists the directory %s, which has no kustomization.yaml", path.Base(s.file), p)})
		return false
	}
	if was := r.steps[p]; was != nil {
		if was.k == nil {
			return false // it was reported when it was listed first
		}
		was.parents = append(was.parents, s)
		s.children = append(s.children, was)
		s.entries = append(s.entries, resourceEntry{sub: was})
		return true
	}
	read := r.view.files[kf].kustomization()
	if read.err != nil {
		problem := r.view.parseFailure(kf, read.err)
		problem.Other = append(problem.Other, place)
		r.fail(problem)
		return false
	}
	sub := &step{dir: p, file: kf, doc: firstDoc(r.view.files[kf]), parents: []*step{s}, component: component, files: map[string]bool{}}
	s.children = append(s.children, sub)
	r.steps[p] = sub
	if err := read.k.CheckEmpty(); err != nil {
		r.fail(&Problem{Kind: BuildFailed, Position: r.view.tree.place(kf, 0, 0), Other: []Position{place}, Message: "the build fails: the kustomization.yaml is empty"})
		return false
	}
	fixed := *read.k
	sub.k = &fixed
	k := *read.k
	k.Resources, k.Components, k.Bases = slices.Clone(k.Resources), slices.Clone(k.Components), slices.Clone(k.Bases)
	before := len(k.Resources) + len(k.Components) + len(k.Bases)
	r.follow(sub, &k)
	if len(k.Resources)+len(k.Components)+len(k.Bases) != before {
		r.write(kf, &k)
	}
	s.entries = append(s.entries, resourceEntry{sub: sub})
	return true
}

// resourceFile makes sure that kustomize can read a file of resources, repairs what it can, and tells whether to go on with it.
func (r *reach) resourceFile(f *file) bool {
	d := f.document()
	if d.broken || d.refused != nil {
		first := d.problems[len(d.problems)-1]
		r.fail(&Problem{Kind: BuildFailed, Position: first.Position, Message: "the build fails: " + first.Message})
		return false
	}
	if _, done := r.written[f.path]; done {
		return true
	}
	for _, p := range d.problems {
		if p.Kind == DuplicateKey {
			r.fail(&Problem{Kind: BuildFailed, Position: p.Position, Other: p.Other, Name: p.Name,
				Message: fmt.Sprintf("the build fails: the key %q is already defined at line %d", p.Name, p.Other[0].Line)})
			if data, err := withoutDuplicates(d.docs); err == nil {
				r.written[f.path] = data
			}
		}
	}
	return true
}

// withoutDuplicates writes the documents with only the last of equal keys, so that the rest of a build can be looked at.
func withoutDuplicates(docs []*yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	for _, d := range docs {
		if err := enc.Encode(unique(d)); err != nil {
			return nil, fmt.Errorf("writing YAML: %w", err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	return out.Bytes(), nil
}

func unique(n *yaml.Node) *yaml.Node {
	out := *n
	out.Content = nil
	if n.Kind != yaml.MappingNode {
		for _, c := range n.Content {
			out.Content = append(out.Content, unique(c))
		}
		return &out
	}
	at := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], unique(n.Content[i+1])
		if j, dup := at[key.Value]; dup && key.Kind == yaml.ScalarNode {
			out.Content[j+1] = value
			continue
		}
		at[key.Value] = len(out.Content)
		out.Content = append(out.Content, key, value)
	}
	return &out
}

func (r *reach) entryPlace(s *step, field string, index int, entry string) Position {
	if list := child(s.doc, field); list != nil && list.Kind == yaml.SequenceNode {
		if index < len(list.Content) && list.Content[index].Value == entry {
			return r.view.tree.place(s.file, list.Content[index].Line, list.Content[index].Column)
		}
		for _, n := range list.Content {
			if n.Value == entry {
				return r.view.tree.place(s.file, n.Line, n.Column)
			}
		}
	}
	if s.doc == nil {
		return Position{} // made up by Flux, or an entry of the Flux Kustomization's own spec
	}
	return r.view.tree.place(s.file, 0, 0)
}

// nearEntry finds a file or directory that resembles a missing one and is in its neighbourhood.
func (r *reach) nearEntry(dir, missing string) string {
	var candidates []string
	for _, d := range []string{path.Dir(missing), dir, path.Dir(path.Dir(missing))} {
		for _, name := range r.view.dirs[d] {
			candidates = append(candidates, path.Join(d, name))
		}
	}
	return near(missing, candidates)
}

// screen looks for remote addresses where kustomize would fetch them without saying so.
func (r *reach) screen(s *step, k *kustypes.Kustomization) {
	var data, paths, texts []string // files that are taken as they are, files that kustomize parses, text that it parses
	for _, p := range slices.Concat(k.Patches, k.PatchesJson6902) {
		paths, texts = append(paths, p.Path), append(texts, p.Patch)
	}
	for _, p := range k.PatchesStrategicMerge {
		if strings.Contains(string(p), "\n") {
			texts = append(texts, string(p))
		} else {
			paths = append(paths, string(p))
		}
	}
	for _, replacement := range k.Replacements {
		paths = append(paths, replacement.Path)
	}
	for _, g := range k.ConfigMapGenerator {
		data = append(data, sources(g.KvPairSources)...)
	}
	for _, g := range k.SecretGenerator {
		data = append(data, sources(g.KvPairSources)...)
	}
	paths = append(paths, k.Configurations...)
	paths = append(paths, k.Crds...)
	paths = append(paths, k.OpenAPI["path"])
	plugins := slices.Concat(k.Generators, k.Transformers, k.Validators)
	r.plugins = r.plugins || len(plugins) > 0
	for _, p := range plugins {
		if strings.Contains(p, "\n") {
			texts = append(texts, p)
		} else {
			paths = append(paths, p)
		}
	}
	for _, p := range data {
		if isRemote(p) {
			r.block(s, p)
		}
	}
	for _, p := range paths {
		r.screenPath(s, p, slices.Contains(plugins, p))
	}
	for _, t := range texts {
		r.screenText(s, t, slices.Contains(plugins, t))
	}
}

func sources(s kustypes.KvPairSources) []string {
	out := append(slices.Clone(s.EnvSources), s.EnvSource)
	for _, f := range s.FileSources {
		if _, p, ok := strings.Cut(f, "="); ok {
			f = p
		}
		out = append(out, f)
	}
	return out
}

func (r *reach) screenPath(s *step, p string, plugin bool) {
	if p == "" {
		return
	}
	if isRemote(p) {
		r.block(s, p)
		return
	}
	f := r.view.files[path.Join(s.dir, p)]
	if f == nil {
		if plugin && r.view.isDir(path.Join(s.dir, p)) {
			r.block(s, p) // a directory of plugins' configurations: whatever it includes could fetch
		}
		return
	}
	if d := f.document(); d.refused != nil {
		r.blocked = true
		r.fail(&Problem{Kind: BuildFailed, Position: r.view.tree.place(f.path, 0, 0), Message: "the build fails: " + d.problems[0].Message})
		return
	}
	if data, err := f.content(); err == nil && plugin && pluginFetches.Match(data) {
		r.block(s, "in the configuration of a generator or transformer")
	}
}

func (r *reach) screenText(s *step, text string, plugin bool) {
	if strings.Contains(text, "*") && strings.Contains(text, "&") {
		if d := parseYAML([]byte(text), s.file, r.view.tree.limits); d.refused != nil {
			r.blocked = true
			r.fail(&Problem{Kind: BuildFailed, Position: r.view.tree.place(s.file, 0, 0), Message: "a patch was not read: " + d.refused.reason})
		}
	}
	if plugin && pluginFetches.MatchString(text) {
		r.block(s, "in the configuration of a generator or transformer")
	}
}

// pluginFetches finds what could be a remote address anywhere in the configuration of a kustomize plugin.
var pluginFetches = regexp.MustCompile(`(?i)(https?:|ssh:|file:|git::|github\.com[/:]|[a-z][a-z0-9-]*@)`)

func (r *reach) block(s *step, what string) {
	if r.remote {
		return
	}
	r.blocked = true
	what = redactURL(what)
	r.fail(&Problem{Kind: RemoteBase, Name: what, Position: r.view.tree.place(s.file, 0, 0),
		Message: fmt.Sprintf("not evaluated: %s refers to something outside of the tree (%s)", path.Base(s.file), what)})
}

var scpUser = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]*@`)

// isRemote tells whether kustomize would fetch the address, over HTTP or by running git. It follows IsRemoteFile and NewRepoSpecFromURL
// of kustomize 0.21.1, and errs on the side of yes.
func isRemote(s string) bool {
	lower := strings.ToLower(s)
	lower = strings.TrimPrefix(lower, "git::")
	for _, prefix := range []string{"http:", "https:", "ssh://", "file://", "github.com/", "github.com:"} {
		if strings.HasPrefix(lower, prefix) {
			return true
		}
	}
	return scpUser.MatchString(lower)
}

// redactURL leaves a user and a password out of an address.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return s
	}
	u.User = nil
	return u.String()
}

// chain returns the steps between an object's file and the root, innermost first: those that could have changed the object. The
// components of a step change what its resources made, so they come before it.
func (r *reach) chain(inFile string) []*step {
	var first []*step
	for _, s := range r.steps {
		if s.files[inFile] || s.file == inFile {
			first = append(first, s)
		}
	}
	slices.SortFunc(first, func(a, b *step) int { return strings.Compare(a.dir, b.dir) })
	var out []*step
	seen := map[*step]bool{}
	var components, up func(s *step)
	components = func(s *step) {
		for _, c := range s.children {
			if c.component && !seen[c] && c.k != nil {
				components(c)
				if !seen[c] {
					seen[c] = true
					out = append(out, c)
				}
			}
		}
	}
	up = func(s *step) {
		if seen[s] || s.k == nil {
			return
		}
		components(s)
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
		for _, p := range s.parents {
			up(p)
		}
	}
	for _, s := range first {
		up(s)
	}
	return out
}
