package fix

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/internal/render"
	"github.com/flux-admission/flux-admission/validators"
)

// Plan collects the edits of findings and says what the files of a tree become by them. Nothing is written before Write.
type Plan struct {
	root  string
	files map[string]*file
	seen  map[string]bool
	// Changed are the findings whose edits are in the plan; Left are those that are not, and why. Both are in the order of their places.
	Changed, Left []Change
}

// Change is one finding and what becomes of it.
type Change struct {
	Rule   string
	Object string
	Place  render.Place
	// What says what is edited; Reason says why it is not.
	What, Reason string
}

type file struct {
	old, new []byte
	// set are the fields that are edited already, by document and path.
	set map[string]string
}

// NewPlan returns an empty plan for the tree below root.
func NewPlan(root string) *Plan {
	return &Plan{root: root, files: map[string]*file{}, seen: map[string]bool{}}
}

// Add takes up the edits of a finding on a rendered object. All of them are made, or none. The same edits of the same document count once, however many
// Kustomizations apply the object.
func (p *Plan) Add(o *render.Object, f *validators.Finding) {
	if len(f.Edits) == 0 {
		return
	}
	c := Change{Rule: f.Rule.Name, Object: o.String(), Place: o.Locate(f.Path).Place, What: describe(f.Edits)}
	key := fmt.Sprint(o.Origin.File, "\x00", o.Origin.Document, "\x00", o.Within(), "\x00", f.Rule.ID, "\x00", patchText(f.Edits))
	if p.seen[key] {
		return
	}
	p.seen[key] = true
	if err := p.edit(o, f); err != nil {
		c.Reason = err.Error()
		p.Left = append(p.Left, c)
		return
	}
	p.Changed = append(p.Changed, c)
}

func (p *Plan) edit(o *render.Object, f *validators.Finding) error {
	switch {
	case o.Origin.File == "" || o.Origin.Document < 0:
		return errors.New("it is not known which file holds the object")
	case o.Origin.Generated:
		return errors.New("a generator makes the object")
	case o.Encrypted:
		return errors.New("the file is encrypted")
	case strings.Contains(o.Origin.File, ":"):
		return errors.New("the file is in another source than the tree")
	}
	for _, e := range f.Edits {
		for _, path := range []validators.Path{e.Path, e.From} {
			if len(path) == 0 {
				continue
			}
			if at := o.Locate(path); at.Role != render.RoleField || at.File != o.Origin.File {
				return fmt.Errorf("it is set in %s (%s)", at.Place, at.Role)
			}
		}
	}
	into, err := p.open(o.Origin.File)
	if err != nil {
		return err
	}
	for _, e := range f.Edits {
		at := fmt.Sprint(o.Origin.Document, o.Within(), e.Path)
		if was, ok := into.set[at]; ok && was != patchText([]validators.Edit{e}) {
			return errors.New("another finding wants something else in the same place")
		}
	}
	next, err := Apply(into.new, o.Origin.Document, o.Within(), f.Edits)
	if err != nil {
		return err
	}
	into.new = next
	for _, e := range f.Edits {
		into.set[fmt.Sprint(o.Origin.Document, o.Within(), e.Path)] = patchText([]validators.Edit{e})
	}
	return nil
}

func (p *Plan) open(name string) (*file, error) {
	if f := p.files[name]; f != nil {
		return f, nil
	}
	root, err := os.OpenRoot(p.root)
	if err != nil {
		return nil, fmt.Errorf("opening the tree: %w", err)
	}
	defer func() { _ = root.Close() }()
	data, err := root.ReadFile(filepath.FromSlash(name))
	if err != nil {
		return nil, fmt.Errorf("reading the file: %w", err)
	}
	p.files[name] = &file{old: data, new: data, set: map[string]string{}}
	return p.files[name], nil
}

// Sort brings the changes into the order of their places.
func (p *Plan) Sort() {
	for _, list := range [][]Change{p.Changed, p.Left} {
		slices.SortStableFunc(list, func(a, b Change) int {
			return cmp.Or(cmp.Compare(a.Place.File, b.Place.File), cmp.Compare(a.Place.Line, b.Place.Line), cmp.Compare(a.Rule, b.Rule))
		})
	}
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
func (p *Plan) Write() error {
	root, err := os.OpenRoot(p.root)
	if err != nil {
		return fmt.Errorf("opening the tree: %w", err)
	}
	defer func() { _ = root.Close() }()
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
	info, err := root.Stat(name)
	if err != nil {
		return err
	}
	temporary := name + ".flux-admission-fix"
	f, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(temporary)
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
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
