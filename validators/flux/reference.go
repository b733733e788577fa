package flux

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

// Reference is a field of the object in review that names another object.
type Reference struct {
	// At is the map that holds the reference's name and, unless Local, its namespace.
	At validators.Path
	// To is the kind of what is named, Key its namespace, with defaults filled in, and name.
	To  schema.GroupKind
	Key types.NamespacedName
	// What calls it in messages: "the dependency apps/db". The zero value stands for the kind and the key.
	What string
	// Local says that the reference has no namespace of its own: what it names must be in the object's namespace.
	Local bool
}

func (r Reference) what() string {
	if r.What != "" {
		return r.What
	}
	return r.To.Kind + " " + r.Key.String()
}

// Check looks for what the reference names: it reports it when it is absent, and says so when that cannot be known.
func (r Reference) Check(ctx context.Context, p *validators.Pass) {
	switch _, presence, err := p.Lookup.Get(ctx, r.To, r.Key); presence {
	case validators.Present:
	case validators.Unknown:
		p.Unknown("whether %s exists is not known: %v", r.what(), err)
	case validators.Absent:
		r.ReportMissing(ctx, p)
	}
}

// ReportMissing reports that what the reference names does not exist. It says which other namespaces have an object of that kind and name, and carries
// the edit that sets the namespace when there is only one.
func (r Reference) ReportMissing(ctx context.Context, p *validators.Pass) {
	f := p.Report(r.At.Child("name"), r.Key.Name, "%s does not exist", r.what())
	f.Key = r.To.Kind + " " + r.Key.String()
	elsewhere := NamespacesOf(ctx, p.Lookup, r.To, r.Key.Name)
	if len(elsewhere) == 0 {
		return
	}
	f.Message += "; one of that name is in namespace " + strings.Join(elsewhere, ", ")
	if r.Local {
		return
	}
	f.Fix = "Set the reference's namespace to the one that it is in."
	if len(elsewhere) == 1 {
		f.Edits = []validators.Edit{Set(p.Object.Object, r.At.Child("namespace"), elsewhere[0])}
	}
}

// NamespacesOf returns the namespaces that have an object of the kind and name, as far as they can be seen, sorted.
func NamespacesOf(ctx context.Context, look validators.Lookup, gk schema.GroupKind, name string) []string {
	list, _, _ := look.List(ctx, gk, "")
	var out []string
	for _, o := range list {
		if o.GetName() == name {
			out = append(out, o.GetNamespace())
		}
	}
	slices.Sort(out)
	return out
}

// Set returns the edit that gives the field at the path a value, in an object whose map above the field exists.
func Set(object map[string]any, at validators.Path, value any) validators.Edit {
	op := validators.EditReplace
	if at.Lookup(object) == nil {
		op = validators.EditAdd
	}
	return validators.Edit{Op: op, Path: at, Value: value}
}
