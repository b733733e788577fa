package check

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/internal/chartinput"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// treeCharts are the charts of a cluster's releases whose source is the tree itself, or a directory that was mapped: by their path,
// never by their name. Other charts are looked up elsewhere.
type treeCharts struct {
	*chartinput.Charts
	read map[string]treeChart
}

// treeChart is the result for one reference.
type treeChart struct {
	chart    validators.Chart
	presence validators.Presence
	err      error
}

// readTreeCharts reads the charts of the releases of all clusters that are in the tree.
func (t *Tree) readTreeCharts(ctx context.Context, built *kustomization.Result) error {
	t.treeCharts = map[*kustomization.Cluster]*treeCharts{}
	for _, c := range built.Clusters {
		charts := &treeCharts{t.charts, map[string]treeChart{}}
		for _, o := range c.Objects {
			if o.GroupVersionKind().GroupKind() != flux.HelmRelease {
				continue
			}
			ref, ok := helmrelease.ChartRef(o.Unstructured)
			if _, known := charts.read[keyOfChart(ref)]; !ok || known {
				continue
			}
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("reading the charts of the tree: %w", err)
			}
			if chart, ok := readTreeChart(ctx, t.charts, c, ref); ok {
				charts.read[keyOfChart(ref)] = chart
			}
		}
		if len(charts.read) > 0 {
			t.treeCharts[c] = charts
		}
	}
	return nil
}

// readTreeChart reads a chart; false if its source is not known.
func readTreeChart(ctx context.Context, charts *chartinput.Charts, c *kustomization.Cluster, ref validators.ChartRef) (treeChart, bool) {
	switch ref.Source.Kind {
	case flux.GitRepository.Kind, flux.Bucket.Kind:
		if ref.Chart == "" {
			return treeChart{}, false
		}
	case flux.ExternalArtifact.Kind:
	default:
		return treeChart{}, false // its artifacts are packaged charts
	}
	a := c.Artifact(ref.Source)
	if a == nil {
		return treeChart{}, false
	}
	include := func(string) bool { return true }
	if ref.Chart != "" {
		dir := sourcetree.Rel(ref.Chart)
		if a.Outside(dir) {
			return treeChart{}, false
		}
		if a.File(dir) == nil && a.File(path.Join(dir, "Chart.yaml")) == nil {
			return treeChart{presence: validators.Absent}, true
		}
		values := make([]string, len(ref.ValuesFiles))
		for i, f := range ref.ValuesFiles {
			values[i] = sourcetree.Rel(f)
		}
		include = func(p string) bool {
			return p == dir || dir == "." || strings.HasPrefix(p, dir+"/") || slices.Contains(values, p)
		}
	}
	var archive bytes.Buffer
	if err := a.WriteArchive(&archive, include); err != nil {
		return treeChart{presence: validators.Unknown, err: err}, true
	}
	chart, err := charts.FromArtifact(ctx, &archive, ref)
	if err != nil {
		return treeChart{presence: validators.Unknown, err: err}, true
	}
	return treeChart{chart: chart, presence: validators.Present}, true
}

// keyOfChart is the same for references to the same chart with the same values files.
func keyOfChart(ref validators.ChartRef) string {
	return fmt.Sprintf("%v %q %q %t", ref.Source, ref.Chart, ref.ValuesFiles, ref.IgnoreMissingValuesFiles)
}

// Resolve implements lookup.Charts.
func (t *treeCharts) Resolve(
	ctx context.Context, objects validators.Lookup, ref validators.ChartRef,
) (validators.Chart, validators.Presence, error) {
	if c, ok := t.read[keyOfChart(ref)]; ok {
		return c.chart, c.presence, c.err
	}
	return t.Charts.Resolve(ctx, objects, ref)
}

// chartsOf returns the charts of a cluster's releases.
func (t *Tree) chartsOf(c *kustomization.Cluster) lookup.Charts {
	if charts := t.treeCharts[c]; charts != nil {
		return charts
	}
	return t.charts
}
