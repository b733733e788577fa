package helmchart

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/internal/helmchart/template"
	"github.com/flux-admission/flux-admission/internal/helmchart/values"
	"github.com/flux-admission/flux-admission/validators"
)

// errNoTemplates is the error of a chart without templates, or of one that was read without them.
var errNoTemplates = errors.New("the chart's templates were not loaded")

// Template implements validators.Chart.
func (c *Chart) Template(ctx context.Context, r validators.Release) (*validators.Templated, validators.Presence, error) {
	if c.templates == nil {
		return nil, validators.Unknown, errNoTemplates
	}
	release, err := values.FromRelease(ctx, r.Values)
	if err != nil {
		return nil, validators.Unknown, err
	}
	if len(release.Missing) > 0 {
		return nil, validators.Unknown, fmt.Errorf("some values are missing: %s", strings.Join(release.Missing, "; "))
	}
	for _, d := range c.templates.missing {
		if !disabled(d, release.Values, c.templates.defaults) {
			return nil, validators.Unknown, fmt.Errorf("subchart %s is missing: Flux fetches it when it packages the chart", d.Name)
		}
	}
	res, err := c.template(ctx, r, release)
	if err != nil {
		return nil, validators.Unknown, err
	}
	out := *res.templated
	if r.UnusedValues && out.Failure == nil {
		out.UnusedValues = c.unusedValues(ctx, res, r.Values, release)
	}
	return &out, validators.Present, nil
}

// CRDs implements validators.Chart.
func (c *Chart) CRDs() []string {
	if c.templates == nil {
		return nil
	}
	return slices.Clone(c.templates.crds)
}

// template templates a release, or returns the cached result.
func (c *Chart) template(ctx context.Context, r validators.Release, release *values.Release) (*result, error) {
	plain, err := release.Plain()
	if err != nil {
		return nil, err
	}
	// JSON has sorted keys.
	id, err := json.Marshal([]any{r.Name, r.Namespace, r.SkipCRDs, plain})
	if err != nil {
		return nil, errors.New("the values cannot be written as JSON")
	}
	key := sha256.Sum256(id)
	if res := c.templates.cached(key); res != nil {
		return res, nil
	}
	in := input{name: r.Name, namespace: r.Namespace, values: plain}
	out, err := c.execute(ctx, in)
	if err != nil {
		return nil, err
	}
	if out.Failure != nil && len(c.templates.apiVersions) > 0 {
		// The cluster may serve the API versions that the templates query.
		in.apiVersions = c.templates.apiVersions
		if out, err = c.execute(ctx, in); err != nil {
			return nil, err
		}
	}
	res := &result{input: in, files: out.Files, templated: &validators.Templated{}}
	if out.Failure == nil {
		c.addObjects(res, r.SkipCRDs)
	} else {
		if release.HasUnresolved() {
			if err := c.failsWithAnyValue(ctx, in, release, out.Failure); err != nil {
				return nil, err
			}
		}
		f := out.Failure
		res.templated.Failure = &validators.TemplateFailure{
			Template: f.Template, Line: f.Line, Column: f.Column, Values: f.Values, Message: f.Message,
		}
	}
	if f := res.templated.Failure; f != nil {
		f.Message = redact(f.Message, release.Secrets())
	}
	c.templates.put(key, res)
	return res, nil
}

// failsWithAnyValue returns an error when a failure may be due to an unresolved value: other values in its place lead
// to success or to another failure.
func (c *Chart) failsWithAnyValue(ctx context.Context, in input, release *values.Release, f *template.Failure) error {
	for _, value := range []string{"1", "true", "text"} {
		var err error
		if in.values, err = release.Filled(value); err != nil {
			return err
		}
		out, err := c.execute(ctx, in)
		if err != nil {
			return err
		}
		if out.Failure == nil || out.Failure.Template != f.Template || out.Failure.Line != f.Line || out.Failure.Column != f.Column {
			return errors.New("templating fails with unresolved variables or encrypted values in place")
		}
	}
	return nil
}

// addObjects adds the objects of crds/ and of the templates' files. A file that Helm cannot parse either is a failure.
func (c *Chart) addObjects(r *result, skipCRDs bool) {
	add := func(name, text string) bool {
		objects, failure := template.Objects(name, text)
		if failure != nil {
			r.templated.Objects, r.templated.Failure = nil, failure
			return false
		}
		r.templated.Objects = append(r.templated.Objects, objects...)
		return true
	}
	tree, err := c.values.Tree(r.values)
	if err == nil && !skipCRDs {
		for _, f := range tree.CRDObjects() {
			if !add(f.Filename, string(f.File.Data)) {
				return
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		if !add(name, r.files[name]) {
			return
		}
	}
}
