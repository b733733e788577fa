package helmchart

import (
	"github.com/flux-admission/flux-admission/internal/helmchart/unusedvalues"
	"github.com/flux-admission/flux-admission/internal/helmchart/values"
	"github.com/flux-admission/flux-admission/validators"
)

// origin returns where the value at a path is set: inline, or in the entry of valuesFrom with a number counted from 1.
// A subchart's global value may be the release's own: its path is then the given one without its first skip steps.
func origin(path validators.Path, v validators.Values, release *values.Release) (inline bool, from, skip int) {
	if values.Has(v.Inline, path) && (len(path) > 0 || len(v.Inline) > 0) {
		return true, 0, 0
	}
	for i, step := range path {
		if step.Key == values.GlobalKey && i > 0 {
			if values.Has(v.Inline, path[i:]) {
				return true, 0, i
			}
			break
		}
	}
	return false, release.Origin(path), 0
}

// unusedValue adds its origin to a key that the chart does not use.
func unusedValue(k unusedvalues.Key, v validators.Values, release *values.Release) validators.UnusedValue {
	out := validators.UnusedValue{Chart: k.Chart, Path: k.Path, Suggestion: k.Suggestion}
	out.Inline, out.From, _ = origin(k.Path, v, release)
	return out
}
