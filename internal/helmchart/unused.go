package helmchart

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/flux-admission/flux-admission/internal/helmchart/unusedvalues"
	"github.com/flux-admission/flux-admission/internal/helmchart/values"
	"github.com/flux-admission/flux-admission/validators"
)

// The limits of searching unused values by templating.
const (
	maxUnusedCandidates = 64
	unusedTimeout       = 10 * time.Second
)

// unusedValues returns the keys whose removal changes nothing in what the templates produce; nil when that cannot be
// determined.
func (c *Chart) unusedValues(ctx context.Context, r *result, v validators.Values, release *values.Release) []validators.UnusedValue {
	// Templating decides, so a schema that was not loaded excuses no key.
	candidates := c.unused.Candidates(ctx, release.Values, c.schemas.knower(ctx, true))
	if len(candidates) > maxUnusedCandidates {
		candidates = candidates[:maxUnusedCandidates]
	}
	out := []validators.UnusedValue{}
	if len(candidates) == 0 {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, unusedTimeout)
	defer cancel()
	baselines, ok := c.baselines(ctx, r)
	if !ok {
		return nil
	}
	for _, k := range candidates {
		unused, err := c.unusedIn(ctx, baselines, r, k)
		if err != nil {
			return nil
		}
		if unused {
			out = append(out, unusedValue(k, v, release))
		}
	}
	return out
}

// baselines executes the templates as for a cluster without and with the API versions that they query: what a cluster
// serves changes what templates produce. False means that the results cannot be compared.
func (c *Chart) baselines(ctx context.Context, r *result) ([]result, bool) {
	var out []result
	for _, versions := range [][]string{nil, c.templates.apiVersions} {
		in := r.input
		in.apiVersions = versions
		again, err := c.execute(ctx, in)
		switch {
		case err != nil:
			return nil, false
		case again.Failure != nil:
			continue
		case slices.Equal(versions, r.apiVersions) && !maps.Equal(again.Files, r.files):
			return nil, false // the templates produce something else every time
		}
		out = append(out, result{input: in, files: again.Files})
		if len(c.templates.apiVersions) == 0 {
			break
		}
	}
	return out, true
}

// unusedIn reports whether the templates produce the same without a key.
func (c *Chart) unusedIn(ctx context.Context, baselines []result, r *result, k unusedvalues.Key) (bool, error) {
	values := without(r.values, k.Path).(map[string]any)
	for _, b := range baselines {
		in := b.input
		in.values = values
		out, err := c.execute(ctx, in)
		if err != nil {
			return false, err
		}
		if out.Failure != nil || !maps.Equal(out.Files, b.files) {
			return false, nil
		}
	}
	return true, nil
}

// without returns values without the key at a path, which leads through maps only.
func without(v any, path validators.Path) any {
	m, ok := v.(map[string]any)
	if !ok || len(path) == 0 {
		return v
	}
	out := maps.Clone(m)
	if len(path) == 1 {
		delete(out, path[0].Key)
		return out
	}
	out[path[0].Key] = without(m[path[0].Key], path[1:])
	return out
}
