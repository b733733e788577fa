package helmchart

import (
	"slices"
	"strings"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/validators"
)

// missingDependencies returns the names of the dependencies that are not in a chart's files.
func missingDependencies(c *chart.Chart) []string {
	var out []string
	for _, d := range c.Metadata.Dependencies {
		if d != nil && !slices.ContainsFunc(c.Dependencies(), func(have *chart.Chart) bool { return have.Name() == d.Name }) {
			out = append(out, d.Name)
		}
	}
	return out
}

// disabled reports whether values disable a dependency by its condition: Helm takes the first of the condition's paths
// that is true or false. The release's values come before the chart's.
func disabled(d *chart.Dependency, release, defaults map[string]any) bool {
	for condition := range strings.SplitSeq(d.Condition, ",") {
		path := validators.NewPath(strings.Split(strings.TrimSpace(condition), ".")...)
		for _, values := range []map[string]any{release, defaults} {
			if enabled, ok := path.Lookup(values).(bool); ok {
				return !enabled
			}
		}
	}
	return false
}
