package chartsource

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// localCharts are the charts of Options.Dirs.
type localCharts []*localChart

// localChart is a chart in a directory or an archive.
type localChart struct {
	path          string
	name, version string
	limits        archive.Limits
	opts          helmchart.Options
	// chart is the chart without values files.
	chart *helmchart.Chart
	// withFiles are the charts with values files, by valuesKey.
	withFiles sync.Map
}

// readLocal reads the charts at the paths: chart directories, archives, and directories that contain such. Empty are the directories with nothing
// in them, which are no error: a server may start before its volume has content.
func readLocal(paths []string, limits archive.Limits, opts helmchart.Options) (out localCharts, empty []string, err error) {
	for _, p := range paths {
		candidates, err := candidates(p)
		if err != nil {
			return nil, nil, fmt.Errorf("%s %w", p, err)
		}
		if len(candidates) == 0 {
			empty = append(empty, p)
		}
		for _, c := range candidates {
			ch, err := archive.ReadPath(c, limits)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", c, err)
			}
			out = append(out, &localChart{
				path: c, name: ch.Name(), version: ch.Metadata.Version, limits: limits, opts: opts, chart: helmchart.New(ch, opts),
			})
		}
	}
	return out, empty, nil
}

// candidates returns the paths of the charts at a path.
func candidates(p string) ([]string, error) {
	info, err := os.Stat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("does not exist; specify a directory or an archive of charts")
	case err != nil:
		return nil, errors.New("cannot be read; check its permissions")
	}
	if !info.IsDir() || isChart(p) {
		return []string{p}, nil
	}
	entries, err := os.ReadDir(p)
	if err != nil {
		return nil, errors.New("cannot be listed; check its permissions")
	}
	var out []string
	for _, e := range entries {
		full := filepath.Join(p, e.Name())
		if isChart(full) || strings.HasSuffix(e.Name(), ".tgz") && e.Type().IsRegular() {
			out = append(out, full)
		}
	}
	if len(out) == 0 && len(entries) > 0 {
		return nil, errors.New("contains no chart; specify a directory with chart directories or .tgz archives")
	}
	return out, nil
}

func isChart(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "Chart.yaml"))
	return err == nil && info.Mode().IsRegular()
}

// find returns the chart that a reference selects by name and version; nil when there is none.
func (l localCharts) find(ref validators.ChartRef) (*helmchart.Chart, error) {
	if ref.Chart == "" {
		return nil, nil
	}
	name := path.Base(path.Clean(ref.Chart))
	var found localCharts
	var versions []string
	for _, c := range l {
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
		rng = ">=0.0.0-0" // any version, pre-releases included
	}
	i, err := repository.Select(versions, rng, nil)
	if err != nil {
		return nil, nil //nolint:nilerr // the source may have the version
	}
	return found[i].with(ref)
}

// with returns the chart with the values files of a reference.
func (l *localChart) with(ref validators.ChartRef) (*helmchart.Chart, error) {
	if len(ref.ValuesFiles) == 0 {
		return l.chart, nil
	}
	key := valuesKey(ref)
	if c, ok := l.withFiles.Load(key); ok {
		return c.(*helmchart.Chart), nil
	}
	ch, err := archive.ReadPath(l.path, l.limits, ref.ValuesFiles...)
	if err != nil {
		return nil, err
	}
	if err := helmchart.MergeValuesFiles(ch, ref.ValuesFiles, nil, ref.IgnoreMissingValuesFiles); err != nil {
		return nil, fmt.Errorf("chart %s: %w", l.path, err)
	}
	c := helmchart.New(ch, l.opts)
	l.withFiles.Store(key, c)
	return c, nil
}
