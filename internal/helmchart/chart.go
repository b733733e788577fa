// Package helmchart is what a Helm chart means for a release: its values, the schemas of these, the objects that its
// templates produce, and the values that it does not use.
//
// It reads no network and knows no Flux source; internal/chartsource provides the charts.
package helmchart

import (
	"time"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
	"github.com/flux-admission/flux-admission/internal/helmchart/unusedvalues"
	"github.com/flux-admission/flux-admission/internal/helmchart/values"
)

// Chart is a chart prepared for validating values, and for templating if it was created with Options.Templates.
// It is safe for concurrent use. It implements validators.Chart.
type Chart struct {
	name, version string
	values        *values.Chart
	schemas       *schemas
	unused        *unusedvalues.Chart
	// missing are dependencies that are not in the chart's files.
	missing []string
	// templates is nil for a chart without templates.
	templates *templates
	memory    int64
}

// Options configure New.
type Options struct {
	// LoadSchema reads the documents that schemas refer to; nil reads none.
	LoadSchema schema.Load
	// Templates keeps the chart's templates and files, which Chart.Template needs.
	Templates bool
	// TemplateTimeout bounds one execution of the templates; template.DefaultTimeout when it is 0.
	TemplateTimeout time.Duration
	// Unpackaged means that the chart comes from a source tree, where source-controller fetches dependencies when it
	// packages the chart. Results then name those that are not beside the chart as missing.
	Unpackaged bool
}

// New prepares a chart, and takes it over: its raw files, and its templates unless Options.Templates is set, are
// dropped. It compiles the schemas of the chart and of all subcharts, which belongs off the request path. A schema that
// cannot be compiled is no error; it makes results partial.
func New(c *chart.Chart, opts Options) *Chart {
	out := &Chart{
		name: c.Name(), version: c.Metadata.Version,
		values: values.NewChart(c), schemas: newSchemas(), unused: unusedvalues.New(c),
	}
	if opts.Templates {
		out.templates = newTemplates(c, opts.TemplateTimeout)
	}
	if opts.Unpackaged {
		out.missing = missingDependencies(c)
	}
	out.memory = out.unused.Memory()
	out.take(c, opts.LoadSchema)
	return out
}

// take compiles the schemas of a chart and its subcharts, and drops what is not needed any more.
func (c *Chart) take(ch *chart.Chart, load schema.Load) {
	ch.Raw = nil
	if c.templates == nil {
		ch.Templates, ch.Files = nil, nil
	}
	c.memory += c.schemas.compile(ch, load) + memoryOf(ch)
	for _, d := range ch.Dependencies() {
		c.take(d, load)
	}
}

// Name implements validators.Chart.
func (c *Chart) Name() string { return c.name }

// Version implements validators.Chart.
func (c *Chart) Version() string { return c.version }

// Memory estimates the memory that the chart takes, in bytes.
func (c *Chart) Memory() int64 { return c.memory }
