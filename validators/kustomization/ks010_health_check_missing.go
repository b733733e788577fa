package kustomization

import (
	"context"
	"errors"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// HealthCheckMissing is the rule kustomization-health-check-missing.
//
// A health check may name an object that an operator or a HelmRelease creates from the Kustomization's objects. If
// something in the Kustomization could create it, it is reported only where the Kustomization applies an object of the kind
// that differs by a typo or in its namespace, and as uncertain. A health check of an object that another
// Kustomization applies works, and is not reported.
var HealthCheckMissing = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS010",
		Name:     "kustomization-health-check-missing",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Health check names an object not applied",
			Why: "kustomize-controller waits for the object until spec.timeout, reports \"NotFound\" and starts " +
				"again: the Kustomization never becomes ready, and what depends on it never starts. Health checks " +
				"have no default namespace.",
			Fix:   "Correct the kind, the name or the namespace of the health check, or remove it.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{flux.Kustomization},
	},
	Check: checkHealthChecks,
}

func checkHealthChecks(ctx context.Context, p *validators.Pass) error {
	at := validators.NewPath("spec", "healthChecks")
	list, _ := at.Lookup(p.Object.Object).([]any)
	if len(list) == 0 {
		return nil
	}
	build, presence, err := p.Lookup.Build(
		ctx,
		types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: p.Object.GetName()},
	)
	if presence != validators.Present || !build.Complete {
		p.Unknown("cannot determine everything that the Kustomization applies: %v", orIncomplete(err))
		return nil
	}
	for i, item := range list {
		entry, _ := item.(map[string]any)
		text := func(field string) string { s, _ := entry[field].(string); return s }
		group, _, ok := strings.Cut(text("apiVersion"), "/")
		if !ok {
			group = ""
		}
		want := validators.ObjectRef{Group: group, Kind: text("kind"), Namespace: text("namespace"), Name: text("name")}
		if want.Kind == "" || want.Name == "" || slices.Contains(build.Applies, want) || unresolved.String(keyOf(want)) {
			continue
		}
		gk := schema.GroupKind{Group: want.Group, Kind: want.Kind}
		if want.Namespace == "" && namespaced(ctx, p.Lookup, gk) {
			f := p.Report(at.Index(i), nil, "the health check of %s %s has no namespace", want.Kind, want.Name)
			f.Key = want.Kind + " " + want.Name
			if meant, field := suggestionFor(build, want, true); field == "namespace" {
				f.Message += "; the Kustomization applies " + meant.Kind + " " + keyOf(meant)
				f.Edits = []validators.Edit{{Op: validators.EditAdd, Path: at.Index(i).Child("namespace"), Value: meant.Namespace}}
			}
			f.Fix = "Set the namespace of the object: a health check has no default namespace."
			continue
		}
		if want.Namespace == "" && slices.ContainsFunc(build.Applies, func(r validators.ObjectRef) bool {
			r.Namespace = ""
			return r == want
		}) {
			continue // the API server ignores the namespace that a kustomization sets on a cluster-scoped object
		}
		uncertain := false
		if creator := mayCreate(build, want); creator.Kind != "" {
			// What is created has another name or namespace only if it is a mistake.
			if _, field := suggestionFor(build, want, false); field == "" {
				continue
			}
			uncertain = true
		}
		switch _, presence, err := p.Lookup.Get(ctx, gk, types.NamespacedName{Namespace: want.Namespace, Name: want.Name}); presence {
		case validators.Present:
			continue
		case validators.Unknown:
			p.Unknown("cannot determine whether %s %s exists: %v", want.Kind, keyOf(want), err)
			continue
		case validators.Absent:
		}
		f := p.Report(at.Index(i).Child("name"), want.Name, "healthChecks lists %s %s, which the Kustomization does not apply", want.Kind, keyOf(want))
		f.Key, f.Uncertain = want.Kind+" "+keyOf(want), uncertain
		if meant, field := suggestionFor(build, want, !uncertain); field != "" {
			f.Message += "; it applies " + meant.Kind + " " + keyOf(meant)
			to := map[string]string{"namespace": meant.Namespace, "name": meant.Name, "kind": meant.Kind}[field]
			where := at.Index(i).Child(field)
			op := validators.EditReplace
			if where.Lookup(p.Object.Object) == nil {
				op = validators.EditAdd
			}
			if !uncertain {
				f.Edits = []validators.Edit{{Op: op, Path: where, Value: to}}
			}
		}
		if uncertain {
			f.Message += ", unless a controller or a chart creates it"
		}
	}
	return nil
}

// namespaced reports whether objects of the kind certainly have a namespace.
func namespaced(ctx context.Context, look validators.Lookup, gk schema.GroupKind) bool {
	kind, presence, _ := look.Kind(ctx, gk)
	return presence == validators.Present && kind != nil && kind.Scope == validators.ScopeNamespaced
}

func keyOf(r validators.ObjectRef) string {
	if r.Namespace == "" {
		return r.Name
	}
	return r.Namespace + "/" + r.Name
}

// mayCreate returns an object that the Kustomization applies and that may create the wanted one: a HelmRelease anything but
// Flux's own objects, a custom resource anything of another kind; the zero value if there is none.
func mayCreate(build *validators.Build, want validators.ObjectRef) validators.ObjectRef {
	if strings.HasSuffix(want.Group, fluxGroups) {
		return validators.ObjectRef{}
	}
	i := slices.IndexFunc(build.Applies, func(r validators.ObjectRef) bool {
		if strings.HasSuffix(r.Group, fluxGroups) {
			return r.Kind == flux.HelmRelease.Kind
		}
		return strings.Contains(r.Group, ".") && !strings.HasSuffix(r.Group, ".k8s.io") && (r.Group != want.Group || r.Kind != want.Kind)
	})
	if i < 0 {
		return validators.ObjectRef{}
	}
	return build.Applies[i]
}

// fluxGroups is the end of the names of Flux's API groups.
const fluxGroups = ".toolkit.fluxcd.io"

// suggestionFor returns the only object of the kind that differs in one field from what is wanted, and that field.
// If that is not certain to be a mistake, a name must be similar.
func suggestionFor(build *validators.Build, want validators.ObjectRef, certain bool) (meant validators.ObjectRef, field string) {
	for _, r := range build.Applies {
		if r.Group == want.Group && r.Name == want.Name && r.Namespace == want.Namespace && suggest.Nearest(want.Kind, []string{r.Kind}) != "" {
			return r, "kind"
		}
		if r.Group != want.Group || r.Kind != want.Kind {
			continue
		}
		differs := ""
		switch {
		case r.Name == want.Name:
			differs = "namespace"
		case r.Namespace == want.Namespace && (certain || suggest.Nearest(want.Name, []string{r.Name}) != ""):
			differs = "name"
		default:
			continue
		}
		if field != "" {
			return validators.ObjectRef{}, "" // more than one candidate
		}
		meant, field = r, differs
	}
	return meant, field
}

var errIncomplete = errors.New("its build fails, or includes resources outside the tree")

func orIncomplete(err error) error {
	if err != nil {
		return err
	}
	return errIncomplete
}
