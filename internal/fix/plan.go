package fix

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// Plan collects the edits of findings and says what the files of a tree become by them. Nothing is written before Write.
type Plan struct {
	root    string
	objects map[document][]*kustomization.Object
	wanted  []*want
	index   map[string]*want
	files   map[string]*file
	// Changed are the findings whose edits are made; Left are those whose edits are not, and why. Both are there once Decide has been called, in the order
	// of their places.
	Changed, Left []Change
}

// Change is one finding and what becomes of it.
type Change struct {
	Rule     string
	Object   string
	Position validators.Position
	// What says what is edited; Reason says why it is not.
	What, Reason string
}

// document is where an object stands in Git.
type document struct {
	file   string
	number int
	within string
}

func documentOf(o *kustomization.Object) document {
	return document{o.Origin.File, o.Origin.Document, o.ItemPath().String()}
}

// want is what findings of one rule on one document ask for, with the objects that they are about.
type want struct {
	document document
	rule     string // its ID
	edits    []validators.Edit
	objects  []*kustomization.Object
	change   Change
}

type file struct {
	old, new []byte
	docs     []*yaml.Node // of old
	// made are the edits that have been made, by document.
	made map[document]map[string]bool
}

// NewPlan returns an empty plan for the tree that was rendered from root.
func NewPlan(root string, rendered *kustomization.Result) *Plan {
	p := &Plan{root: root, objects: map[document][]*kustomization.Object{}, index: map[string]*want{}, files: map[string]*file{}}
	for _, c := range rendered.Clusters {
		for _, o := range c.Objects {
			// What another cluster gets is not evaluated.
			if o.Origin.File != "" && !o.Origin.Generated && (o.Kustomization == nil || !o.Kustomization.RemoteCluster()) {
				p.objects[documentOf(o)] = append(p.objects[documentOf(o)], o)
			}
		}
	}
	return p
}

// Add takes up the edits of a finding on a rendered object. The same edits of the same document count once, however many Kustomizations apply the object.
func (p *Plan) Add(o *kustomization.Object, f *validators.Finding) {
	if len(f.Edits) == 0 {
		return
	}
	w := &want{document: documentOf(o), rule: f.Rule.ID, edits: f.Edits, objects: []*kustomization.Object{o}}
	w.change = Change{Rule: f.Rule.Name, Object: o.String(), Position: o.Locate(f.Path).Position, What: describe(f.Edits)}
	if w.document.number >= 0 && !o.Origin.Generated { // what a generator makes has no document that could be shared
		key := fmt.Sprint(w.document, w.rule, patchText(w.edits))
		if known := p.index[key]; known != nil {
			known.objects = append(known.objects, o)
			return
		}
		p.index[key] = w
	}
	p.wanted = append(p.wanted, w)
}

// Decide makes the edits that can be made, each finding's all or none, and fills Changed and Left. Call it once, after the last Add.
func (p *Plan) Decide() {
	slices.SortStableFunc(p.wanted, func(a, b *want) int {
		x, y := a.change, b.change
		return cmp.Or(cmp.Compare(x.Position.File, y.Position.File), cmp.Compare(x.Position.Line, y.Position.Line), cmp.Compare(x.Rule, y.Rule), cmp.Compare(x.What, y.What))
	})
	byDocument := map[document][]*want{}
	for _, w := range p.wanted {
		byDocument[w.document] = append(byDocument[w.document], w)
	}
	for _, w := range p.wanted {
		err := p.check(w, byDocument[w.document])
		if err == nil {
			err = p.make(w)
		}
		if err != nil {
			w.change.Reason = err.Error()
			p.Left = append(p.Left, w.change)
			continue
		}
		p.Changed = append(p.Changed, w.change)
	}
}

// check says what speaks against edits before the file is looked at. Others are all that is wanted of the document.
func (p *Plan) check(w *want, others []*want) error {
	for _, o := range w.objects {
		switch {
		case o.Origin.Generated:
			return errors.New("a generator makes the object")
		case o.Origin.File == "" || o.Origin.Document < 0:
			return errors.New("it is not known which file holds the object")
		case o.Encrypted:
			return errors.New("the file is encrypted")
		case strings.Contains(o.Origin.File, ":"):
			return errors.New("the file is in another source than the tree")
		}
		for _, path := range paths(w.edits) {
			if at := o.Locate(path); at.Role != kustomization.RoleField || at.File != o.Origin.File {
				return fmt.Errorf("it is set in %s (%s)", at.Position, at.Role)
			}
		}
	}
	for _, other := range others {
		if other != w && conflict(w.edits, other.edits) {
			return fmt.Errorf("%s wants something else in the same place (%s)", other.change.Rule, other.change.What)
		}
	}
	// What repairs the object for one Kustomization may break it for another.
	for _, o := range p.objects[w.document] {
		if !slices.Contains(w.objects, o) {
			return fmt.Errorf("the file is also applied by %s, where this is not found", applier(o))
		}
	}
	return nil
}

func applier(o *kustomization.Object) string {
	if o.Kustomization == nil {
		return "another entry point"
	}
	of := "Kustomization " + o.Kustomization.Key.String()
	if by := o.Kustomization.Object; by != nil && by.Origin.File != "" {
		of += " of " + by.Origin.File
	}
	return of
}

// paths are all that edits touch.
func paths(edits []validators.Edit) []validators.Path {
	var out []validators.Path
	for _, e := range edits {
		out = append(out, e.Path)
		if e.Op == validators.EditMove {
			out = append(out, e.From)
		}
	}
	return out
}

// conflict tells whether two findings' edits are about the same place and not the same.
func conflict(a, b []validators.Edit) bool {
	for i := range a {
		for j := range b {
			if patchText(a[i:i+1]) == patchText(b[j:j+1]) {
				continue
			}
			for _, x := range paths(a[i : i+1]) {
				for _, y := range paths(b[j : j+1]) {
					if x.HasPrefix(y) || y.HasPrefix(x) {
						return true
					}
				}
			}
		}
	}
	return false
}

// make makes the edits in the file's new text.
func (p *Plan) make(w *want) error {
	into, err := p.open(w.document.file)
	if err != nil {
		return err
	}
	if w.document.number >= len(into.docs) {
		return errors.New("the file is not what was rendered")
	}
	for _, o := range w.objects {
		if err := same(o, into.docs[w.document.number], w.edits); err != nil {
			return err
		}
	}
	made := into.made[w.document]
	var left []validators.Edit
	for _, e := range w.edits {
		if !made[patchText([]validators.Edit{e})] { // two rules may want the same
			left = append(left, e)
		}
	}
	next, err := Apply(into.new, w.document.number, w.objects[0].ItemPath(), left)
	if err != nil {
		return err
	}
	into.new = next
	if made == nil {
		made = map[string]bool{}
		into.made[w.document] = made
	}
	for _, e := range w.edits {
		made[patchText([]validators.Edit{e})] = true
	}
	return nil
}

// same tells whether the file says in the places of the edits what was found: the items of a list may be others once patches are applied, and a variable
// in a value would be lost.
func same(o *kustomization.Object, doc *yaml.Node, edits []validators.Edit) error {
	for _, path := range paths(edits) {
		at, own := yamlposition.Find(doc, join(o.ItemPath(), path)), o.Locate(path).Position
		if at.Line != own.Line || at.Column != own.Column {
			return fmt.Errorf("%s is in another place of the file than of what is applied", path)
		}
	}
	for _, e := range edits {
		if e.Op != validators.EditReplace && e.Op != validators.EditRemove {
			continue
		}
		n, _, err := find(doc.Content[0], join(o.ItemPath(), e.Path))
		if err != nil || n.Kind != yaml.ScalarNode {
			continue // Apply says what is wrong with it
		}
		if o.Kustomization != nil && unresolved.HasVariable(n.Value) {
			return fmt.Errorf("%s holds a variable", e.Path)
		}
		if text, ok := e.Path.Lookup(o.Object).(string); ok && text != n.Value {
			return fmt.Errorf("%s is something else in the file than in what is applied", e.Path)
		}
	}
	return nil
}

func (p *Plan) open(name string) (_ *file, err error) {
	if f := p.files[name]; f != nil {
		return f, nil
	}
	root, err := os.OpenRoot(p.root)
	if err != nil {
		return nil, fmt.Errorf("opening the tree: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	data, err := root.ReadFile(filepath.FromSlash(name))
	if err != nil {
		return nil, fmt.Errorf("reading the file: %w", err)
	}
	docs, err := parse(data)
	if err != nil {
		return nil, err
	}
	p.files[name] = &file{old: data, new: data, docs: docs, made: map[document]map[string]bool{}}
	return p.files[name], nil
}

// Files returns the names of the files that change, sorted.
func (p *Plan) Files() []string {
	var out []string
	for name, f := range p.files {
		if string(f.old) != string(f.new) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Texts returns what a file holds and what it is to hold.
func (p *Plan) Texts(name string) (before, after string) {
	return string(p.files[name].old), string(p.files[name].new)
}

// Write writes the files that change, each in one step, with the mode that it has. It fails before the first when one of them is not what the plan was made
// for any more.
func (p *Plan) Write() (err error) {
	root, err := os.OpenRoot(p.root)
	if err != nil {
		return fmt.Errorf("opening the tree: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, name := range p.Files() {
		now, err := root.ReadFile(filepath.FromSlash(name))
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if string(now) != string(p.files[name].old) {
			return fmt.Errorf("%s has changed meanwhile; run this again", name)
		}
	}
	for _, name := range p.Files() {
		if err := replace(root, filepath.FromSlash(name), p.files[name].new); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}

// replace writes a file beside the old one and puts it in its place.
func replace(root *os.Root, name string, data []byte) (err error) {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file any more")
	}
	temporary := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+"."+rand.Text())
	f, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, root.Remove(temporary))
		}
	}()
	_, err = f.Write(data)
	// The umask does not apply to a change of mode.
	if err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close()); err != nil {
		return err
	}
	return root.Rename(temporary, name)
}

func patchText(edits []validators.Edit) string {
	data, err := validators.JSONPatch(edits)
	if err != nil {
		return fmt.Sprint(edits)
	}
	return string(data)
}

func describe(edits []validators.Edit) string {
	var out []string
	for _, e := range edits {
		value, err := json.Marshal(e.Value)
		if err != nil {
			value = []byte("the new value")
		}
		switch e.Op {
		case validators.EditAdd:
			out = append(out, fmt.Sprintf("add %s: %s", e.Path, value))
		case validators.EditReplace:
			out = append(out, fmt.Sprintf("set %s to %s", e.Path, value))
		case validators.EditRemove:
			out = append(out, fmt.Sprintf("remove %s", e.Path))
		case validators.EditMove:
			out = append(out, fmt.Sprintf("move %s to %s", e.From, e.Path))
		}
	}
	return strings.Join(out, "; ")
}
