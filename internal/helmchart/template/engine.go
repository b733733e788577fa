// Package template renders charts by Helm's own template engine, as for an installation and without a cluster, within bounds of time and size.
//
// What is random in Helm (passwords, keys, certificates, the time) is the same every time here, so that two renderings can be compared.
package template

import (
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

// The bounds of one rendering.
const (
	// Timeout is how long a rendering is waited for.
	Timeout = 10 * time.Second
	// MaxBytes is how much a rendering may have.
	MaxBytes = 32 << 20
)

// Input is what a chart is rendered with.
type Input struct {
	// Chart is the chart after Helm has processed its dependencies. It is not changed.
	Chart *chart.Chart
	// Name and Namespace are the release's.
	Name, Namespace string
	// Values are the release's own. They are not changed.
	Values map[string]any
	// APIVersions are what the cluster serves beside Kubernetes' own versions, as templates ask for it: "monitoring.coreos.com/v1".
	APIVersions []string
	// Now is the time that templates see.
	Now time.Time
}

// Output is a rendering.
type Output struct {
	// Files are the rendered templates by their path, the chart's name first. Partials and NOTES.txt are left out.
	Files map[string]string
	// Failure says why there are none; nil when the chart renders.
	Failure *Failure
}

// Failure is why a chart does not render.
type Failure struct {
	// Template, Line and Column are where the chart fails: Line from 1, Column from 1; empty and 0 when not known.
	Template     string
	Line, Column int
	// Values is the place in the release's values that the template asks for there; empty when it asks for none.
	Values validators.Path
	// Message is Helm's, or what the chart's author wrote. It may quote values.
	Message string
	// Authored tells that the chart's author wrote the message, with required or fail.
	Authored bool

	// root is the template that was being rendered: Template, or one that includes it.
	root string
}

// ErrTimeout is the error of a rendering that takes too long.
var ErrTimeout = fmt.Errorf("the chart did not render within %s", Timeout)

// Render renders a chart. An error means that it cannot be said what Helm would make of it here: it takes too long or gets too large, it asks
// for what is in the cluster, or it is for another Kubernetes. Its text quotes no value.
func Render(ctx context.Context, in Input) (*Output, error) {
	kube, err := common.ParseKubeVersion(componentversion.DefaultKubeBinaryVersion)
	if err != nil {
		return nil, fmt.Errorf("the release of the Kubernetes libraries: %w", err)
	}
	if want := in.Chart.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, kube.String()) {
		return nil, fmt.Errorf("the chart is for Kubernetes %s, and charts are rendered as for %s", want, kube)
	}
	capabilities := common.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *kube
	capabilities.APIVersions = slices.Concat(capabilities.APIVersions, in.APIVersions)

	out, asked, err := bounded(ctx, in, capabilities)
	if err != nil || out.Failure == nil || !asked || out.Failure.root == "" {
		return out, err
	}
	// An earlier template may have asked, or the one that fails.
	alone := in
	alone.Chart = only(in.Chart, out.Failure.root)
	again, asked, err := bounded(ctx, alone, capabilities)
	if err != nil {
		return nil, err
	}
	if asked || again.Failure == nil {
		return nil, errors.New("the chart asks for what is in the cluster, which is not asked here")
	}
	return out, nil
}

// bounded renders in a goroutine of its own, which is left behind when it takes too long: a Go template cannot be stopped.
func bounded(ctx context.Context, in Input, capabilities *common.Capabilities) (*Output, bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, Timeout, ErrTimeout)
	defer cancel()
	type answer struct {
		out   *Output
		asked bool
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				// What a panic says may quote a value.
				done <- answer{err: errors.New("Helm's engine panicked")} //nolint:staticcheck // Helm is a name
			}
		}()
		out, asked, err := render(ctx, in, capabilities)
		done <- answer{out, asked, err}
	}()
	select {
	case a := <-done:
		return a.out, a.asked, a.err
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}

// render has Helm render, and tells whether a template looked into the cluster.
func render(ctx context.Context, in Input, capabilities *common.Capabilities) (*Output, bool, error) {
	release := common.ReleaseOptions{Name: in.Name, Namespace: in.Namespace, Revision: 1, IsInstall: true}
	// Helm copies the values here. Schemas have been looked at before.
	values, err := util.ToRenderValuesWithSchemaValidation(in.Chart, in.Values, release, capabilities, true)
	if err != nil {
		return nil, false, errors.New("Helm cannot merge the release's values into the chart's") //nolint:staticcheck // Helm is a name
	}
	var asked atomic.Bool
	e := helm.Engine{CustomTemplateFuncs: functions(in.Now, &asked)}
	files, err := e.RenderWithContext(ctx, in.Chart, values)
	if errors.Is(err, errTooLarge) {
		return nil, false, errTooLarge
	}
	if err != nil {
		return &Output{Failure: failureOf(err, in.Chart)}, asked.Load(), nil
	}
	total := 0
	for name, text := range files {
		if total += len(text); total > MaxBytes {
			return nil, false, fmt.Errorf("the chart renders to more than %d MiB", MaxBytes>>20)
		}
		if strings.HasSuffix(name, "NOTES.txt") || strings.TrimSpace(text) == "" {
			delete(files, name)
		}
	}
	return &Output{Files: files}, asked.Load(), nil
}

// only copies a tree of charts with one of its templates, and the partials.
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

// asks finds what templates ask of .Capabilities.APIVersions.
var asks = regexp.MustCompile("APIVersions\\.Has\\s+\\(?\\s*[\"`]([^\"`]+)[\"`]")

// AskedVersions returns the API versions that a chart's templates ask a cluster for by name, beside those that Kubernetes itself has, sorted.
func AskedVersions(c *chart.Chart) []string {
	found := map[string]bool{}
	var visit func(*chart.Chart)
	visit = func(c *chart.Chart) {
		for _, f := range c.Templates {
			for _, m := range asks.FindAllSubmatch(f.Data, -1) {
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
