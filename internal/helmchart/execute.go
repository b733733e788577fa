package helmchart

import (
	"context"
	"errors"

	"github.com/flux-admission/flux-admission/internal/helmchart/template"
)

// execute executes the chart's templates once.
func (c *Chart) execute(ctx context.Context, in input) (*template.Output, error) {
	if err := c.templates.err(); err != nil {
		return nil, err
	}
	tree, err := c.values.Tree(in.values)
	if err != nil {
		return nil, err
	}
	out, err := template.Execute(ctx, template.Input{
		Chart: tree, Name: in.name, Namespace: in.namespace, Values: in.values, APIVersions: in.apiVersions,
		Now: c.templates.now, Timeout: c.templates.timeout,
	})
	if errors.Is(err, template.ErrTimeout) {
		c.templates.abandon(err)
	}
	return out, err
}
