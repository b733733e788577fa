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
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// Plan collects the edits of findings and computes the new files of a tree. Only Write changes files.
type Plan struct {
	root     string
	objects  map[Document][]*kustomization.Object
	requests []*request
	index    map[string]*request
	files    map[string]*file
	// Applied are the findings whose edits can be applied; Rejected are the others, with the reasons. Decide sets both, in the order of their
	// positions.
	Applied, Rejected []Change
}

// Change is an edit, and the findings that it repairs: those of one rule in one document, which several Kustomizations may apply.
type Change struct {
	Rule     string
	Object   string
	Position validators.Position
	Findings []*validators.Finding
	// Edit describes the edit; Reason is why it cannot be applied.
	Edit, Reason string
}

// Replacement is an applied edit as text: what is between two positions of a file, the second one excluded, is replaced.
type Replacement struct {
	From, To validators.Position
	Text     string
}

// Document identifies an object in Git.
type Document struct {
	file   string
	number int
	within string
}

// DocumentOf returns where Git has an object.
func DocumentOf(o *kustomization.Object) Document {
	return Document{o.Origin.File, o.Origin.Document, o.ItemPath().String()}
}

// request contains the edits of one rule in one document, and the objects with the findings.
type request struct {
	document Document
	rule     string // its ID
	edits    []validators.Edit
	objects  []*kustomization.Object
	change   Change
	// applied is the result of Decide, rejected the reason of Confirm.
	applied  bool
	rejected error
}

type file struct {
	old, new []byte
	docs     []*yaml.Node // of old
	// applied are the edits in new, by document.
	applied map[Document]map[string]bool
}

// NewPlan returns an empty plan for the tree at root.
func NewPlan(root string, rendered *kustomization.Result) *Plan {
	p := &Plan{root: root, objects: map[Document][]*kustomization.Object{}, index: map[string]*request{}, files: map[string]*file{}}
	for _, c := range rendered.Clusters {
		for _, o := range c.Objects {
			// Objects of remote clusters are not evaluated.
			if o.Origin.File != "" && !o.Origin.Generated && (o.Kustomization == nil || !o.Kustomization.RemoteCluster()) {
				p.objects[DocumentOf(o)] = append(p.objects[DocumentOf(o)], o)
			}
		}
	}
	return p
}

// Add adds the edits of a finding on an object. Equal edits of one document are combined, since several Kustomizations may apply the object.
func (p *Plan) Add(o *kustomization.Object, f *validators.Finding) {
	if len(f.Edits) == 0 {
		return
	}
	w := &request{document: DocumentOf(o), rule: f.Rule.ID, edits: f.Edits, objects: []*kustomization.Object{o}}
	w.change = Change{
		Rule: f.Rule.Name, Object: o.String(), Position: o.Locate(f.Path).Position, Edit: describe(f.Edits), Findings: []*validators.Finding{f},
	}
	if w.document.number >= 0 && !o.Origin.Generated { // a generated object has no document that others share
		key := fmt.Sprint(w.document, w.rule, patchText(w.edits))
		if known := p.index[key]; known != nil {
			known.objects = append(known.objects, o)
			known.change.Findings = append(known.change.Findings, f)
			return
		}
		p.index[key] = w
	}
	p.requests = append(p.requests, w)
}

// Confirm calls reject for each applied change, with the objects that have its findings, and takes the changes for which it returns a reason out
// of the plan.
func (p *Plan) Confirm(reject func(Change, []*kustomization.Object) error) {
	again := false
	for _, w := range p.requests {
		if !w.applied {
			continue
		}
		if w.rejected = reject(w.change, w.objects); w.rejected != nil {
			again = true
		}
	}
	if !again {
		return
	}
	for _, f := range p.files {
		f.new, f.applied = f.old, map[Document]map[string]bool{}
	}
	p.Applied, p.Rejected = nil, nil
	p.Decide()
}

// Decide applies the edits, all or none of each finding, and sets Applied and Rejected. Call it after the last Add.
func (p *Plan) Decide() {
	slices.SortStableFunc(p.requests, func(a, b *request) int {
		x, y := a.change, b.change
		return cmp.Or(cmp.Compare(x.Position.File, y.Position.File), cmp.Compare(x.Position.Line, y.Position.Line), cmp.Compare(x.Rule, y.Rule), cmp.Compare(x.Edit, y.Edit))
	})
	byDocument := map[Document][]*request{}
	for _, w := range p.requests {
		byDocument[w.document] = append(byDocument[w.document], w)
	}
	for _, w := range p.requests {
		err := w.rejected
		if err == nil {
			err = p.check(w, byDocument[w.document])
		}
		if err == nil {
			err = p.apply(w)
		}
		w.applied = err == nil
		if err != nil {
			w.change.Reason = err.Error()
			p.Rejected = append(p.Rejected, w.change)
			continue
		}
		p.Applied = append(p.Applied, w.change)
	}
}

// Replacements returns each applied edit as if it was the only one, by the findings that it repairs.
func (p *Plan) Replacements() map[*validators.Finding]*Replacement {
	out := map[*validators.Finding]*Replacement{}
	for _, w := range p.requests {
		if !w.applied {
			continue
		}
		old := p.files[w.document.file].old
		alone, err := Apply(old, w.document.number, w.objects[0].ItemPath(), w.edits)
		if err != nil {
			continue // it can be applied after another one only
		}
		r := replacementOf(w.document.file, string(old), string(alone))
		for _, f := range w.change.Findings {
			out[f] = r
		}
	}
	return out
}

// replacementOf returns the smallest replacement of whole characters that makes a text another one.
func replacementOf(name, before, after string) *Replacement {
	from := 0
	for i, r := range before {
		if !strings.HasPrefix(after[min(i, len(after)):], string(r)) {
			break
		}
		from = i + len(string(r))
	}
	a, b := before[from:], after[from:]
	for a != "" {
		_, size := utf8.DecodeLastRuneInString(a)
		if !strings.HasSuffix(b, a[len(a)-size:]) {
			break
		}
		a, b = a[:len(a)-size], b[:len(b)-size]
	}
	position := func(offset int) validators.Position {
		line := strings.LastIndexByte(before[:offset], '\n') + 1
		return validators.Position{
			File: name, Line: 1 + strings.Count(before[:offset], "\n"), Column: 1 + utf8.RuneCountInString(before[line:offset]),
		}
	}
	return &Replacement{position(from), position(from + len(a)), b}
}

// check returns the reason why edits cannot be applied, without reading the file. Others are all requests for the document.
func (p *Plan) check(w *request, others []*request) error {
	for _, o := range w.objects {
		switch {
		case o.Origin.Generated:
			return errors.New("object is generated")
		case o.Origin.File == "" || o.Origin.Document < 0:
			return errors.New("file of the object is unknown")
		case o.Encrypted:
			return errors.New("file is encrypted")
		case strings.Contains(o.Origin.File, ":"):
			return errors.New("file is in another source than the tree")
		}
		for _, path := range paths(w.edits) {
			if at := o.Locate(path); at.Role != kustomization.RoleField || at.File != o.Origin.File {
				return fmt.Errorf("field is set in %s (%s)", at.Position, at.Role)
			}
		}
	}
	for _, other := range others {
		if other != w && conflict(w.edits, other.edits) {
			return fmt.Errorf("conflicts with the edit of %s (%s)", other.change.Rule, other.change.Edit)
		}
	}
	// An edit that fixes the object for one Kustomization may break it for another.
	for _, o := range p.objects[w.document] {
		if !slices.Contains(w.objects, o) {
			return fmt.Errorf("file is also applied by %s, where the problem does not occur", owner(o))
		}
	}
	return nil
}

func owner(o *kustomization.Object) string {
	if o.Kustomization == nil {
		return "another entry point"
	}
	of := "Kustomization " + o.Kustomization.Key.String()
	if by := o.Kustomization.Object; by != nil && by.Origin.File != "" {
		of += " of " + by.Origin.File
	}
	return of
}

// paths returns the paths that the edits change.
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

// conflict reports whether different edits of two findings overlap.
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

// apply applies the edits to the new text of the file.
func (p *Plan) apply(w *request) error {
	into, err := p.open(w.document.file)
	if err != nil {
		return err
	}
	if w.document.number >= len(into.docs) {
		return errors.New("file has changed since it was read")
	}
	for _, o := range w.objects {
		if err := checkFile(o, into.docs[w.document.number], w.edits); err != nil {
			return err
		}
	}
	applied := into.applied[w.document]
	var left []validators.Edit
	for _, e := range w.edits {
		if !applied[patchText([]validators.Edit{e})] { // two rules may have equal edits
			left = append(left, e)
		}
	}
	next, err := Apply(into.new, w.document.number, w.objects[0].ItemPath(), left)
	if err != nil {
		return err
	}
	into.new = next
	if applied == nil {
		applied = map[string]bool{}
		into.applied[w.document] = applied
	}
	for _, e := range w.edits {
		applied[patchText([]validators.Edit{e})] = true
	}
	return nil
}

// checkFile returns an error if the file does not have the values of the object at the positions of the edits: patches may change the items of
// a list, and an edit would remove a variable from a value.
func checkFile(o *kustomization.Object, doc *yaml.Node, edits []validators.Edit) error {
	for _, path := range paths(edits) {
		at, own := yamlposition.Find(doc, join(o.ItemPath(), path)), o.Locate(path).Position
		if at.Line != own.Line || at.Column != own.Column {
			return fmt.Errorf("%s has another position in the file than in the applied object", path)
		}
	}
	for _, e := range edits {
		if e.Op != validators.EditReplace && e.Op != validators.EditRemove {
			continue
		}
		n, _, err := find(doc.Content[0], join(o.ItemPath(), e.Path))
		if err != nil || n.Kind != yaml.ScalarNode {
			continue // Apply returns the error
		}
		if o.Kustomization != nil && unresolved.HasVariable(n.Value) {
			return fmt.Errorf("%s contains a variable", e.Path)
		}
		if text, ok := e.Path.Lookup(o.Object).(string); ok && text != n.Value {
			return fmt.Errorf("%s has another value in the file than in the applied object", e.Path)
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
	p.files[name] = &file{old: data, new: data, docs: docs, applied: map[Document]map[string]bool{}}
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

// Edited returns the new texts of the files that change, by their names.
func (p *Plan) Edited() map[string][]byte {
	out := map[string][]byte{}
	for _, name := range p.Files() {
		out[name] = p.files[name].new
	}
	return out
}

// Repaired returns the number of findings that the applied edits repair.
func (p *Plan) Repaired() int {
	n := 0
	for _, c := range p.Applied {
		n += len(c.Findings)
	}
	return n
}

// Texts returns the old and the new text of a file.
func (p *Plan) Texts(name string) (before, after string) {
	return string(p.files[name].old), string(p.files[name].new)
}

// Write replaces the files that change, each atomically and with its mode. It fails before the first write if one of them has changed since it was
// read.
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
			return fmt.Errorf("%s has changed since it was read; run the command again", name)
		}
	}
	for _, name := range p.Files() {
		if err := replace(root, filepath.FromSlash(name), p.files[name].new); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}

// replace writes a temporary file in the same directory and renames it.
func replace(root *os.Root, name string, data []byte) (err error) {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file any more")
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
	// Chmod is not subject to the umask.
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
