package helmchart

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/helmchart/template"
	"github.com/flux-admission/flux-admission/validators"
)

// maxResults bounds the results of one chart that are cached: several rules need the same one, one after another.
const maxResults = 2

// templates are what is known of a chart's templates, and their latest results.
type templates struct {
	// apiVersions are the API versions that the templates query by name.
	apiVersions []string
	// missing are the dependencies that are not in the chart's files.
	missing []*chart.Dependency
	// defaults are the chart's own values.
	defaults map[string]any
	crds     []string
	// now is the time that all templates see.
	now     time.Time
	timeout time.Duration

	mu      sync.Mutex
	results []cachedResult
	// abandoned is the error of an execution that did not end in time. Such a chart is not executed again.
	abandoned error
}

type cachedResult struct {
	key [sha256.Size]byte
	*result
}

// result is the result of executing a chart's templates, with the input that led to it.
type result struct {
	input
	files     map[string]string
	templated *validators.Templated
}

// input is what a chart's templates are executed with.
type input struct {
	name, namespace string
	values          map[string]any
	// apiVersions are the API versions that the cluster is taken to serve.
	apiVersions []string
}

// newTemplates returns nil for a chart that has no templates.
func newTemplates(c *chart.Chart, timeout time.Duration) *templates {
	if !hasTemplates(c) {
		return nil
	}
	t := &templates{apiVersions: template.QueriedAPIVersions(c), defaults: c.Values, now: time.Now(), timeout: timeout}
	missing := missingDependencies(c)
	for _, d := range c.Metadata.Dependencies {
		if d != nil && slices.Contains(missing, d.Name) {
			t.missing = append(t.missing, d)
		}
	}
	for _, f := range c.CRDObjects() {
		objects, failure := template.Objects(f.Filename, string(f.File.Data))
		if failure != nil {
			continue
		}
		for _, o := range objects {
			if o.Object.GetKind() == "CustomResourceDefinition" {
				t.crds = append(t.crds, o.Object.GetName())
			}
		}
	}
	slices.Sort(t.crds)
	t.crds = slices.Compact(t.crds)
	return t
}

func hasTemplates(c *chart.Chart) bool {
	return len(c.Templates) > 0 || slices.ContainsFunc(c.Dependencies(), hasTemplates)
}

// cached returns the result for a key; nil when it is not cached.
func (t *templates) cached(key [sha256.Size]byte) *result {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.results {
		if r.key == key {
			return r.result
		}
	}
	return nil
}

// put caches a result, in place of the oldest one.
func (t *templates) put(key [sha256.Size]byte, r *result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.results) >= maxResults {
		t.results = slices.Delete(t.results, 0, 1)
	}
	t.results = append(t.results, cachedResult{key, r})
}

// abandon records that an execution did not end in time.
func (t *templates) abandon(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.abandoned = err
}

// err returns the error of an execution that did not end in time; nil when there was none.
func (t *templates) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.abandoned
}
