package helmrelease

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// DottedKey is the rule helm-values-dotted-key.
//
// Helm's --set reads dots as the path of a nested value; in YAML they are part of the key. Whether a chart reads such a
// key only its templates show, and the rule on unknown keys reports it there. Without the chart this rule reports what
// cannot be meant: a key image.tag beside a map image.
var DottedKey = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR018",
		Name:     "helm-values-dotted-key",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Dots in the key of a value",
			Why: "In YAML the dots are part of the key, other than in helm --set: the chart reads the value of the nested maps, " +
				"and the setting has no effect.",
			Fix:   "Write the key as nested maps, one for each dot.",
			Since: "v0.1.0",
		},
	},
	Check: checkDottedKeys,
}

func checkDottedKeys(ctx context.Context, p *validators.Pass) error {
	at := validators.NewPath("spec", "values")
	values, _ := at.Lookup(p.Object.Object).(map[string]any)
	dotted := dottedKeys(values)
	if len(dotted) == 0 {
		return nil
	}
	if ref, ok := ChartRef(p.Object); ok {
		if _, presence, _ := p.Lookup.Chart(ctx, ref); presence == validators.Present {
			return nil // the chart shows what it reads
		}
	}
	for _, key := range dotted {
		parent, _, _ := strings.Cut(key, ".")
		p.Report(at.Child(key), nil, "the dots in '%s' are part of one key; '%s' beside it is a map", key, parent)
	}
	return nil
}

// dottedKeys returns the keys with dots that are beside a map with the name of their first part, sorted. Only the first
// level counts: below, such keys are the names of sections (auth.basic of Grafana), settings, labels and files.
func dottedKeys(values map[string]any) []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if parent, _, ok := strings.Cut(key, "."); ok && isPath(key) {
			if _, nested := values[parent].(map[string]any); nested {
				out = append(out, key)
			}
		}
	}
	return out
}

// isPath reports whether a key with dots may be meant as a path of nested values.
func isPath(key string) bool {
	files := []string{".yaml", ".yml", ".json", ".conf", ".ini", ".properties", ".toml", ".xml", ".sh", ".txt", ".cfg", ".tpl", ".tmpl", ".js", ".env"}
	return !strings.ContainsAny(key, "/ :*") && !strings.HasPrefix(key, ".") && !strings.HasSuffix(key, ".") && !strings.Contains(key, "..") &&
		!slices.Contains(files, strings.ToLower(path.Ext(key))) && !unresolved.HasVariable(key) && !unresolved.HasTemplate(key)
}
