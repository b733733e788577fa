package schema

import (
	"context"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// InvalidValue is the rule invalid-value.
//
// It reports what the API server's validation of a custom resource reports (types, required fields, enums, patterns,
// list keys, CEL rules), and for Kubernetes' own kinds type errors, duplicate list entries and the mistakes that are
// made most, such as a mount without its volume. Values are not quoted: one may come from a Secret.
var InvalidValue = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SC002",
		Name:     "invalid-value",
		Scope:    validators.Scope{AnyKind: true},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Value violates the schema of the kind",
			Why: "The API server rejects the object on every write, and everything that depends on the " +
				"Kustomization waits.",
			Fix:   "Set a value that the schema of the kind allows.",
			Since: since,
		},
	},
	Check: checkInvalidValue,
}

func checkInvalidValue(ctx context.Context, p *validators.Pass) error {
	s, ok := schemaOf(ctx, p)
	if unresolved.IsEncryptedObject(p.Object.Object) {
		return nil
	}
	invalid := invalidMetadata(p.Object)
	if kind, _, _ := p.Lookup.Kind(ctx, p.Object.GroupVersionKind().GroupKind()); kind != nil && kind.Scope == validators.ScopeCluster {
		// The API server drops the namespace of a cluster-scoped object before it validates it (k8s.io/apiserver: rest.BeforeCreate).
		invalid = slices.DeleteFunc(invalid, func(v validators.InvalidValue) bool { return v.Path.String() == "metadata.namespace" })
	}
	if ok {
		for _, v := range s.InvalidValues(ctx, p.Object) {
			if !slices.ContainsFunc(invalid, func(m validators.InvalidValue) bool { return m.Path.String() == v.Path.String() }) {
				invalid = append(invalid, v)
			}
		}
	}
	open := 0
	for _, v := range invalid {
		if p.Provenance != nil && p.Provenance.MayBePatch && v.Incomplete {
			continue
		}
		// A violation of a rule between fields has the path of their parent.
		if slices.ContainsFunc(p.Unresolved, func(u validators.Path) bool { return v.Path.HasPrefix(u) || u.HasPrefix(v.Path) }) {
			open++
			continue
		}
		// Without a Kustomization nothing is known about its substitution, which may also be the default of the variable, or be made by a script.
		if text, ok := v.Path.Lookup(p.Object.Object).(string); ok && (unresolved.HasVariable(text) || unresolved.HasPlaceholder(text)) &&
			(p.Provenance == nil || p.Provenance.Kustomization.Name == "") {
			open++
			continue
		}
		name := v.Path.String()
		if name == "" {
			name = "the object"
		}
		if text := variableText(p, v.Path); text != "" && v.Unquoted {
			f := p.Report(v.Path, nil, "%s %s: the substitution of %s makes it one", name, v.Message, text)
			f.Fix = "Put the quotes into the value of the variable, as in '\"0123\"', or around the variable as " +
				"${quote}" + text + "${quote} with quote: '\"': quotes in the file are gone before variables are substituted."
			continue
		}
		if v.Unquoted {
			v.Message += " (put it in quotes)"
		}
		by, uncertain := s.by, s.uncertain || v.Uncertain || v.Combined && p.Provenance != nil && p.Provenance.MayBePatch
		if v.Path.HasPrefix(validators.NewPath("metadata")) { // the same in all releases
			by, uncertain = "", false
		}
		f := p.Report(v.Path, nil, "%s %s%s", name, v.Message, by)
		f.Uncertain = uncertain
		if strings.HasPrefix(v.Message, "is required") {
			f.Fix = "Add " + name + "."
		}
	}
	if open > 0 {
		p.Unknown("some values are encrypted or come from variables outside Git, and were not validated")
	}
	return nil
}

// variableText returns the text of a field in Git if it has a variable; empty if it has none, or is not known.
func variableText(p *validators.Pass, at validators.Path) string {
	if p.Provenance == nil || p.Provenance.Written == nil {
		return ""
	}
	if text := p.Provenance.Written(at); unresolved.HasVariable(text) {
		return text
	}
	return ""
}
