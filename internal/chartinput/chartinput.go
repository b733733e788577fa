// Package chartinput opens the charts that the flags of a command name: directories, and the network if the user allows it.
package chartinput

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/validators"
)

// fetchTimeout bounds how long one release waits for its chart when charts are fetched.
const fetchTimeout = time.Minute

// Missing is the MissingInput.What of a chart that is in none of the given directories.
const Missing = "chart"

// MissingText returns what cannot be evaluated without charts, and the flags that give them; nothing for other inputs.
func MissingText(what string) (text, remedy string) {
	if what != Missing {
		return "", ""
	}
	return "the values of releases were not checked against charts that are not available", "use --charts DIR or --fetch-charts"
}

// Options are where charts come from.
type Options struct {
	// Dirs are directories with Helm charts and chart archives.
	Dirs []string
	// Fetch fetches charts that are in none of these directories from their repositories.
	Fetch bool
	// Cache is the directory that keeps fetched charts for the next run; NoCache for none, empty for one in the user's cache
	// directory if that can be written.
	Cache string
	// RegistryConfig is the file with logins for registries, as docker login writes it; empty for Docker's own.
	RegistryConfig string
	// SchemaHosts are hosts that charts' values schemas may refer to; what is there is fetched.
	SchemaHosts []string
	// Templates loads what validators.Chart's Template needs.
	Templates bool
	// Warn is called with a warning about an empty directory beside others; nil for nobody.
	Warn func(text string)
}

// Charts resolves charts, and reads those of archives. It implements lookup.Charts.
type Charts struct {
	resolver *chartsource.Resolver
	fetch    bool
}

// Resolve implements lookup.Charts.
func (c *Charts) Resolve(
	ctx context.Context, objects validators.Lookup, ref validators.ChartRef,
) (validators.Chart, validators.Presence, error) {
	if c.fetch {
		return c.resolver.Resolve(ctx, objects, ref)
	}
	chart, err := c.resolver.Local(ctx, objects, ref)
	if err != nil {
		return nil, validators.Unknown, err
	}
	if chart == nil {
		return nil, validators.Unknown, chartMissing(ref)
	}
	return chart, validators.Present, nil
}

// FromArtifact reads the chart that a reference names from the archive of its source.
func (c *Charts) FromArtifact(ctx context.Context, data io.Reader, ref validators.ChartRef) (validators.Chart, error) {
	return c.resolver.FromArtifact(ctx, data, ref)
}

// Open returns a resolver of charts, which goes to the network only if the options allow it, and a function that closes it.
func Open(o Options) (*Charts, func(), error) {
	options := chartsource.Options{Dirs: o.Dirs, Templates: o.Templates, SchemaHosts: o.SchemaHosts}
	if o.Fetch {
		logins, err := readLogins(o.RegistryConfig)
		if err != nil {
			return nil, nil, err
		}
		options.Wait, options.CacheDir, options.Login = fetchTimeout, cacheDir(o.Cache), logins.login
	}
	r, err := chartsource.New(options)
	if err != nil {
		return nil, nil, fmt.Errorf("--charts: %w", err)
	}
	switch empty := r.Empty(); {
	case len(empty) == 0:
	case len(empty) == len(o.Dirs):
		r.Close()
		return nil, nil, fmt.Errorf("--charts: %s", emptyText(empty))
	case o.Warn != nil:
		o.Warn("--charts: " + emptyText(empty))
	}
	return &Charts{resolver: r, fetch: o.Fetch}, r.Close, nil
}

func emptyText(dirs []string) string {
	return "nothing is in " + strings.Join(dirs, ", ") + "; specify a directory with chart directories or .tgz archives"
}

// NoCache is the Options.Cache of a run that keeps no charts.
const NoCache = "none"

// cacheDir returns the directory of an Options.Cache; empty for none.
func cacheDir(given string) string {
	switch given {
	case NoCache:
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

func chartMissing(ref validators.ChartRef) error {
	name := strings.TrimSpace(ref.Chart + " " + ref.Version)
	if name == "" {
		name = ref.Source.Kind + " " + ref.Source.Namespace + "/" + ref.Source.Name
	}
	return &validators.MissingInput{
		What: Missing, Name: name, Text: "chart " + name + " is in none of the --charts directories",
	}
}
