// Package template executes the templates of charts with Helm's own engine, as for an installation and without a
// cluster, within limits of time and size.
//
// Functions that are random in Helm (passwords, keys, certificates, the time) return the same every time here, so that
// the outputs of two executions can be compared.
package template

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	helm "helm.sh/helm/v4/pkg/engine"
	componentversion "k8s.io/component-base/version"

	"github.com/flux-admission/flux-admission/validators"
)

// The limits of one execution.
const (
	// DefaultTimeout is how long an execution may take unless Input.Timeout is set.
	DefaultTimeout = 10 * time.Second
	// MaxBytes is the most that the templates may produce together.
	MaxBytes = 32 << 20
)

// Input is what templates are executed with.
type Input struct {
	// Chart is the chart after Helm has processed its dependencies. It is not changed.
	Chart *chart.Chart
	// Name and Namespace are the release's.
	Name, Namespace string
	// Values are the release's own. They are not changed.
	Values map[string]any
	// APIVersions are what the cluster serves in addition to Kubernetes' own: "monitoring.coreos.com/v1".
	APIVersions []string
	// Now is the time that templates see.
	Now time.Time
	// Timeout is how long the execution may take; DefaultTimeout when it is 0.
	Timeout time.Duration
}

// Output is the result of an execution.
type Output struct {
	// Files are the output of each template by its path, the chart's name first. Partials and NOTES.txt are left out.
	Files map[string]string
	// Failure is why there are no files; nil on success.
	Failure *Failure
}

// Failure is an error of a template.
type Failure struct {
	// Template, Line and Column are where the error is, counted from 1; empty and 0 when not known.
	Template     string
	Line, Column int
	// Values is the value that the template reads there, as a path in the release's values; empty when it reads none.
	Values validators.Path
	// Message is Helm's, or that of the chart's author. It may quote values.
	Message string

	// root is the template that was being executed: Template, or one that includes it.
	root string
}

// ErrTimeout is the error of an execution that takes too long.
var ErrTimeout = errors.New("the templates take too long")

// Execute executes the templates of a chart. An error means that Helm's result in a cluster cannot be determined: the
// execution takes too long or produces too much, a template looks into the cluster, or the chart is for another version
// of Kubernetes. The error quotes no value.
func Execute(ctx context.Context, in Input) (*Output, error) {
	kube, err := common.ParseKubeVersion(componentversion.DefaultKubeBinaryVersion)
	if err != nil {
		return nil, fmt.Errorf("the release of the Kubernetes libraries: %w", err)
	}
	if want := in.Chart.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, kube.String()) {
		return nil, fmt.Errorf("the chart requires Kubernetes %s; charts are templated for %s", want, kube)
	}
	capabilities := common.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *kube
	capabilities.APIVersions = slices.Concat(capabilities.APIVersions, in.APIVersions)

	out, queried, err := executeBounded(ctx, in, capabilities)
	if err != nil || out.Failure == nil || !queried || out.Failure.root == "" {
		return out, err
	}
	// It may have been another template that looked into the cluster: execute the failing one alone.
	alone := in
	alone.Chart = only(in.Chart, out.Failure.root)
	again, queried, err := executeBounded(ctx, alone, capabilities)
	if err != nil {
		return nil, err
	}
	if queried || again.Failure == nil {
		return nil, errors.New("a template looks up objects of the cluster, which are not available here")
	}
	return out, nil
}

// executeBounded executes in a goroutine, which it abandons on a timeout: a Go template cannot be stopped. It reports
// whether a template looked into the cluster.
func executeBounded(ctx context.Context, in Input, capabilities *common.Capabilities) (*Output, bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(in.Timeout, DefaultTimeout), ErrTimeout)
	defer cancel()
	type result struct {
		out     *Output
		queried bool
		err     error
	}
	done := make(chan result, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				// The panic's text may quote a value.
				done <- result{err: errors.New("Helm's engine panicked")} //nolint:staticcheck // Helm is a name
			}
		}()
		out, queried, err := execute(ctx, in, capabilities)
		done <- result{out, queried, err}
	}()
	select {
	case r := <-done:
		return r.out, r.queried, r.err
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}

// execute executes the templates, and reports whether one looked into the cluster.
func execute(ctx context.Context, in Input, capabilities *common.Capabilities) (*Output, bool, error) {
	release := common.ReleaseOptions{Name: in.Name, Namespace: in.Namespace, Revision: 1, IsInstall: true}
	// Helm copies the values here. The schemas were validated before.
	values, err := util.ToRenderValuesWithSchemaValidation(in.Chart, in.Values, release, capabilities, true)
	if err != nil {
		return nil, false, errors.New("Helm cannot merge the release's values into the chart's") //nolint:staticcheck // Helm is a name
	}
	var queried atomic.Bool
	e := helm.Engine{CustomTemplateFuncs: functions(in.Now, &queried)}
	files, err := e.RenderWithContext(ctx, in.Chart, values)
	if errors.Is(err, errTooLarge) {
		return nil, false, errTooLarge
	}
	if err != nil {
		return &Output{Failure: failureOf(err, in.Chart)}, queried.Load(), nil
	}
	total := 0
	for name, text := range files {
		if total += len(text); total > MaxBytes {
			return nil, false, fmt.Errorf("the templates produce more than %d MiB", MaxBytes>>20)
		}
		if strings.HasSuffix(name, "NOTES.txt") || strings.TrimSpace(text) == "" {
			delete(files, name)
		}
	}
	return &Output{Files: files}, queried.Load(), nil
}

// only copies a chart and its subcharts with a single template, and the partials.
func only(c *chart.Chart, template string) *chart.Chart {
	out := *c
	out.Templates = nil
	for _, f := range c.Templates {
		if strings.HasPrefix(path.Base(f.Name), "_") || path.Join(c.ChartFullPath(), f.Name) == template {
			out.Templates = append(out.Templates, f)
		}
	}
	dependencies := make([]*chart.Chart, 0, len(c.Dependencies()))
	for _, d := range c.Dependencies() {
		dependencies = append(dependencies, only(d, template))
	}
	out.SetDependencies(dependencies...)
	return &out
}

// apiVersionQuery matches a template's query of .Capabilities.APIVersions.
var apiVersionQuery = regexp.MustCompile("APIVersions\\.Has\\s+\\(?\\s*[\"`]([^\"`]+)[\"`]")

// QueriedAPIVersions returns the API versions that a chart's templates query by name, without Kubernetes' own, sorted.
func QueriedAPIVersions(c *chart.Chart) []string {
	found := map[string]bool{}
	var visit func(*chart.Chart)
	visit = func(c *chart.Chart) {
		for _, f := range c.Templates {
			for _, m := range apiVersionQuery.FindAllSubmatch(f.Data, -1) {
				if v := string(m[1]); !common.DefaultVersionSet.Has(v) {
					found[v] = true
				}
			}
		}
		for _, d := range c.Dependencies() {
			visit(d)
		}
	}
	visit(c)
	return slices.Sorted(maps.Keys(found))
}
