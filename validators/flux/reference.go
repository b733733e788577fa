package flux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/validators"
)

// Reference is a field of the object in review that names another object.
type Reference struct {
	// At is the map that holds the reference's name and, unless Local, its namespace.
	At validators.Path
	// To is the kind of the named object, Key its name and its namespace, with the default applied.
	To  schema.GroupKind
	Key types.NamespacedName
	// What is its name in messages, such as "the dependency apps/db"; default: the kind and the key.
	What string
	// Local means that the reference has no namespace field: the named object must be in the object's own namespace.
	Local bool
	// Optional means that the object works without the other one: a missing one is a warning at most.
	Optional bool
	// Other is a kind that is confused with To: of an object of it with the same key, the finding reports that the
	// reference cannot name it. The zero value is none.
	Other schema.GroupKind
}

func (r Reference) what() string {
	if r.What != "" {
		return r.What
	}
	return r.To.Kind + " " + r.Key.String()
}

// Check reports the reference if the named object is absent, and records an Unknown if that cannot be determined.
func (r Reference) Check(ctx context.Context, p *validators.Pass) {
	switch _, presence, err := p.Lookup.Get(ctx, r.To, r.Key); presence {
	case validators.Present:
	case validators.Unknown:
		_, likely := errors.AsType[*validators.Likely](err)
		if !likely && (r.reportOther(ctx, p, err) || r.reportLikely(ctx, p, err)) {
			return
		}
		p.Unknown("cannot determine whether %s exists: %v", r.what(), err)
	case validators.Absent:
		if !r.reportOther(ctx, p, nil) {
			r.ReportMissing(ctx, p)
		}
	}
}

// reportOther reports a reference that names an object of the kind Other, which it cannot reach. Unknown is why it cannot be
// determined whether there is one of the right kind; nil if there is none.
func (r Reference) reportOther(ctx context.Context, p *validators.Pass, unknown error) bool {
	if r.Other.Kind == "" {
		return false
	}
	if _, presence, _ := p.Lookup.Get(ctx, r.Other, r.Key); presence != validators.Present {
		return false
	}
	f := r.reportMissing(p, nil)
	self := p.Object.GetKind()
	f.Message += fmt.Sprintf("; %s %s exists, but a %s can depend on a %s only", r.Other.Kind, r.Key, self, r.To.Kind)
	f.Uncertain = unknown != nil
	f.Fix = "Depend on the " + self + " that waits for the " + r.Other.Kind + "."
	if r.To == Kustomization {
		f.Fix = "Depend on the Kustomization that applies the " + r.Other.Kind + ", and let that one wait for it with " +
			"spec.healthChecks, or with a readyExpr in this entry."
		if owners, _, _ := p.Lookup.Owners(ctx, r.Other, r.Key); len(owners) == 1 && !p.Confined {
			f.Fix = fmt.Sprintf("Depend on Kustomization %s, which applies the %s, and name the %s in the spec.healthChecks of that one.",
				owners[0], r.Other.Kind, r.Other.Kind)
		}
	}
	return true
}

// reportLikely reports a reference whose target is not known where the evidence makes a mistake likely: the name exists
// in another namespace, or differs by a typo. It is never more than a warning, and names what may still have the target.
func (r Reference) reportLikely(ctx context.Context, p *validators.Pass, unknown error) bool {
	if p.Confined {
		return false // the evidence is in other namespaces
	}
	list, _, _ := p.Lookup.List(ctx, r.To, "")
	var elsewhere, names []string
	for _, o := range list {
		switch {
		case o.GetNamespace() == r.Key.Namespace && o.GetName() == r.Key.Name:
			return false // it exists, and its content cannot be read
		case o.GetName() == r.Key.Name && (o.GetNamespace() == "" || r.Key.Namespace == ""):
			return false // one of them gets its namespace from somebody else
		case o.GetName() == r.Key.Name:
			elsewhere = append(elsewhere, o.GetNamespace())
		case o.GetNamespace() == r.Key.Namespace:
			names = append(names, o.GetName())
		}
	}
	near := suggest.Nearest(r.Key.Name, names)
	unlikely, isUnlikely := errors.AsType[*validators.Unlikely](unknown)
	if len(elsewhere) == 0 && near == "" && !isUnlikely {
		return false
	}
	f := r.reportMissing(p, elsewhere)
	f.Uncertain = true
	if isUnlikely {
		f.Message += ", unless it is in " + unlikely.Text
	} else {
		f.Message += ", unless what could not be evaluated creates it"
	}
	if near != "" && len(elsewhere) == 0 {
		f.Message += "; did you mean " + near + "?"
	}
	return true
}

// ReportMissing reports that the named object does not exist. The finding names the other namespaces that have an
// object of that kind and name; if there is one only, its edit sets the namespace. It names none where findings are
// confined.
func (r Reference) ReportMissing(ctx context.Context, p *validators.Pass) {
	r.reportMissing(p, NamespacesOf(ctx, p.Lookup, r.To, r.Key.Name))
}

func (r Reference) reportMissing(p *validators.Pass, namespaces []string) *validators.Finding {
	f := p.Report(r.At.Child("name"), r.Key.Name, "%s does not exist", r.what())
	f.Key = r.To.Kind + " " + r.Key.String()
	f.Uncertain = r.Optional
	if p.Confined {
		return f
	}
	if len(namespaces) == 0 {
		return f
	}
	f.Message += "; one exists in namespace " + strings.Join(namespaces, ", ")
	if r.Local {
		return f
	}
	f.Fix = "Set the namespace of the reference to that of the object."
	if len(namespaces) == 1 {
		f.Edits = []validators.Edit{Set(p.Object.Object, r.At.Child("namespace"), namespaces[0])}
	}
	return f
}

// NamespacesOf returns the namespaces that are known to have an object of the kind and name, sorted.
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

// Set returns the edit that sets the field at a path of an object; the parent of the field must exist.
func Set(object map[string]any, at validators.Path, value any) validators.Edit {
	op := validators.EditReplace
	if at.Lookup(object) == nil {
		op = validators.EditAdd
	}
	return validators.Edit{Op: op, Path: at, Value: value}
}
