package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// fetchTimeout bounds how long one release waits for its chart when charts are fetched.
const fetchTimeout = time.Minute

// missingChart is the MissingInput.What of a chart that is in none of the given directories.
const missingChart = "chart"

// openCharts returns a resolver of charts, which goes to the network only if the input allows it, and a function that
// closes it.
func openCharts(in Input) (lookup.Charts, func(), error) {
	if len(in.Charts) == 0 && !in.FetchCharts {
		return noCharts{}, func() {}, nil
	}
	options := chartsource.Options{Dirs: in.Charts, Templates: true, SchemaHosts: in.SchemaHosts}
	if in.FetchCharts {
		logins, err := readLogins(in.RegistryConfig)
		if err != nil {
			return nil, nil, err
		}
		options.Wait, options.CacheDir, options.Login = fetchTimeout, chartCache(in.ChartCache), logins.login
	}
	r, err := chartsource.New(options)
	if err != nil {
		return nil, nil, fmt.Errorf("--charts: %w", err)
	}
	if in.FetchCharts {
		return r, r.Close, nil
	}
	return localCharts{r}, r.Close, nil
}

// NoChartCache is the Input.ChartCache of a check that keeps no charts.
const NoChartCache = "none"

// chartCache returns the directory of an Input.ChartCache; empty for none.
func chartCache(given string) string {
	switch given {
	case NoChartCache:
		return ""
	case "":
		dir, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(dir, "flux-admission", "charts")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return ""
		}
		return dir
	}
	return given
}

// localCharts resolves charts in directories only.
type localCharts struct{ resolver *chartsource.Resolver }

// Resolve implements lookup.Charts.
func (l localCharts) Resolve(
	ctx context.Context, objects validators.Lookup, ref validators.ChartRef,
) (validators.Chart, validators.Presence, error) {
	chart, err := l.resolver.Local(ctx, objects, ref)
	if err != nil {
		return nil, validators.Unknown, err
	}
	if chart == nil {
		return nil, validators.Unknown, chartMissing(ref)
	}
	return chart, validators.Present, nil
}

// noCharts has no chart.
type noCharts struct{}

// Resolve implements lookup.Charts.
func (noCharts) Resolve(
	_ context.Context, _ validators.Lookup, ref validators.ChartRef,
) (validators.Chart, validators.Presence, error) {
	return nil, validators.Unknown, chartMissing(ref)
}

func chartMissing(ref validators.ChartRef) error {
	name := strings.TrimSpace(ref.Chart + " " + ref.Version)
	if name == "" {
		name = ref.Source.Kind + " " + ref.Source.Namespace + "/" + ref.Source.Name
	}
	return &validators.MissingInput{
		What: missingChart, Name: name, Text: "chart " + name + " is in none of the --charts directories",
	}
}
