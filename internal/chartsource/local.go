package chartsource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
	"github.com/flux-admission/flux-admission/validators"
)

// localChart is a chart of Options.Dirs.
type localChart struct {
	path          string
	name, version string
	limits        archive.Limits
	// plain is the chart without values files.
	plain *Chart
	load  schema.Load
	// render tells that the chart can be rendered.
	render bool
	// with keeps the chart with values files, by their list.
	with *sync.Map
}

// readLocal reads the charts at the paths: a chart's directory, an archive, or a directory that holds such.
func readLocal(paths []string, limits archive.Limits, load schema.Load, render bool) ([]localChart, error) {
	var out []localChart
	for _, p := range paths {
		candidates, err := candidates(p)
		if err != nil {
			return nil, fmt.Errorf("charts at %s: %w", p, err)
		}
		for _, c := range candidates {
			ch, err := archive.ReadPath(c, limits)
			if err != nil {
				return nil, fmt.Errorf("charts at %s: %s: %w", p, c, err)
			}
			out = append(out, localChart{path: c, name: ch.Name(), version: ch.Metadata.Version, limits: limits, plain: newChart(ch, load, render), load: load, render: render, with: &sync.Map{}})
		}
	}
	return out, nil
}

func candidates(p string) ([]string, error) {
	info, err := os.Stat(p)
	if err != nil {
		return nil, errors.New("it cannot be read; give a directory or an archive that exists")
	}
	if !info.IsDir() || isChart(p) {
		return []string{p}, nil
	}
	entries, err := os.ReadDir(p)
	if err != nil {
		return nil, errors.New("it cannot be listed; check its permissions")
	}
	var out []string
	for _, e := range entries {
		full := filepath.Join(p, e.Name())
		if isChart(full) || strings.HasSuffix(e.Name(), ".tgz") && e.Type().IsRegular() {
			out = append(out, full)
		}
	}
	if len(out) == 0 && len(entries) > 0 {
		return nil, errors.New("there is no chart in it; give a directory that holds chart directories or .tgz archives")
	}
	return out, nil
}

func isChart(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "Chart.yaml"))
	return err == nil && info.Mode().IsRegular()
}

// Local returns the chart of Options.Dirs that a reference selects; nil when there is none. Objects tell the name of a chart that the reference does not name.
func (r *Resolver) Local(ctx context.Context, objects validators.Lookup, ref validators.ChartRef) (*Chart, error) {
	if len(r.local) == 0 {
		return nil, nil
	}
	ref = named(ctx, objects, ref)
	name := path.Base(path.Clean(ref.Chart))
	if ref.Chart == "" {
		return nil, nil
	}
	var found []localChart
	var versions []string
	for _, c := range r.local {
		if c.name == name {
			found = append(found, c)
			versions = append(versions, c.version)
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	rng := ref.Version
	if rng == "" {
		rng = ">=0.0.0-0" // the only versions there are, pre-releases included
	}
	i, err := repository.Select(versions, rng, nil)
	if err != nil {
		return nil, nil //nolint:nilerr // the source may have what the directories have not
	}
	return found[i].chart(ref)
}

// chart returns the chart with the values files that a reference asks for.
func (l localChart) chart(ref validators.ChartRef) (*Chart, error) {
	if len(ref.ValuesFiles) == 0 {
		return l.plain, nil
	}
	key := join(append(slices.Clone(ref.ValuesFiles), fmt.Sprint(ref.IgnoreMissingValuesFiles))...)
	if c, ok := l.with.Load(key); ok {
		return c.(*Chart), nil
	}
	ch, err := archive.ReadPath(l.path, l.limits, ref.ValuesFiles...)
	if err != nil {
		return nil, err
	}
	c, err := prepare(ch, ref.ValuesFiles, ref.IgnoreMissingValuesFiles, l.load, l.render)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", l.path, err)
	}
	l.with.Store(key, c)
	return c, nil
}

// prepare merges values files over one another in place of the chart's values, as source-controller does, and compiles the schemas.
func prepare(ch *chart.Chart, valuesFiles []string, ignoreMissing bool, load schema.Load, render bool) (*Chart, error) {
	if err := mergeValuesFiles(ch, valuesFiles, ignoreMissing); err != nil {
		return nil, err
	}
	return newChart(ch, load, render), nil
}
