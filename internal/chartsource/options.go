package chartsource

import (
	"context"
	"time"

	"github.com/go-logr/logr"

	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
)

// Options configure a Resolver. The zero value of a field means its default.
type Options struct {
	// Dirs are chart directories, chart archives, and directories that contain such. They are matched by the chart's name
	// and version, whatever repository a release names, and take precedence over every source.
	Dirs []string
	// Wait is how long one review waits for sources; 0 does not wait.
	Wait time.Duration
	// CacheBytes bounds the memory of the cached charts; 256 MiB by default.
	CacheBytes int64
	// CacheDir keeps chart archives across restarts; empty for none.
	CacheDir string
	// CacheDirBytes bounds CacheDir; 1 GiB by default.
	CacheDirBytes int64
	// StateDir records the charts that are being read, so that one that ends the process is not read again at once; empty
	// for none.
	StateDir string
	// TTL is how long a chart is used without asking its source again; 5 minutes by default. An older chart is used while
	// a new one is fetched.
	TTL time.Duration
	// NegativeTTL is how long a failure or an absence is cached; 20 seconds by default. A failure that follows another one
	// is cached twice as long, up to two minutes.
	NegativeTTL time.Duration
	// FetchTimeout bounds fetching one chart; a minute by default.
	FetchTimeout time.Duration
	// ArtifactTimeout bounds reading an artifact from source-controller when its source is a fallback; a second by
	// default. Flux's network policies only let its own namespace connect to source-controller, and a dropped connection
	// hangs.
	ArtifactTimeout time.Duration
	// MaxFetches bounds the charts that are fetched concurrently; 8 by default.
	MaxFetches int
	// MaxFetchesPerTenant bounds those from one host, and for the sources of one namespace; MaxFetches by default.
	MaxFetchesPerTenant int
	// HeaderTimeout bounds connecting to a source until the header of its response; 30 seconds by default.
	HeaderTimeout time.Duration
	// NoCrossNamespace denies sources in other namespaces than the release's, as Flux's controllers do with
	// --no-cross-namespace-refs.
	NoCrossNamespace bool
	// SchemaHosts are the hosts, with the port unless it is the default one, that schemas may refer to, such as
	// "json.schemastore.org"; none by default. A reference to another host makes results partial.
	SchemaHosts []string
	// Login returns the user's own login for the URL of a source whose object names no credentials that can be read; an empty name means that there
	// is none. Nil for none.
	Login func(ctx context.Context, url string) (username, password string, err error)
	// AllowLoopback lets sources redirect to loopback and link-local addresses.
	AllowLoopback bool
	// Limits bound the charts; by default archive.DefaultLimits with Templates, and archive.AdmissionLimits without.
	Limits archive.Limits
	// Indexes bound the indexes of Helm repositories, with the same defaults as Limits.
	Indexes repository.IndexLimits
	// Templates loads what validators.Chart's Template needs. A check of a Git tree sets it. The webhook does not: the
	// execution of a Go template cannot be stopped, so untrusted templates must not run there.
	Templates bool
	// Observer receives events; nil for none.
	Observer Observer
	// Log receives what happens in the background; the zero Logger logs nothing.
	Log logr.Logger
	// Clock returns the time; time.Now by default.
	Clock func() time.Time
}

// withDefaults returns the options with their defaults filled in.
func (o Options) withDefaults() Options {
	if o.CacheBytes <= 0 {
		o.CacheBytes = 256 << 20
	}
	if o.CacheDirBytes <= 0 {
		o.CacheDirBytes = 1 << 30
	}
	if o.TTL <= 0 {
		o.TTL = 5 * time.Minute
	}
	if o.NegativeTTL <= 0 {
		o.NegativeTTL = 20 * time.Second
	}
	if o.FetchTimeout <= 0 {
		o.FetchTimeout = time.Minute
	}
	if o.ArtifactTimeout <= 0 {
		o.ArtifactTimeout = time.Second
	}
	if o.MaxFetches <= 0 {
		o.MaxFetches = 8
	}
	if o.MaxFetchesPerTenant <= 0 {
		o.MaxFetchesPerTenant = o.MaxFetches
	}
	if o.HeaderTimeout <= 0 {
		o.HeaderTimeout = 30 * time.Second
	}
	if o.Limits == (archive.Limits{}) {
		o.Limits = archive.AdmissionLimits()
		if o.Templates {
			o.Limits = archive.DefaultLimits()
		}
	}
	if o.Indexes == (repository.IndexLimits{}) {
		o.Indexes = repository.AdmissionIndexLimits()
		if o.Templates {
			o.Indexes = repository.DefaultIndexLimits()
		}
	}
	o.Limits.AllFiles = o.Templates
	if o.Observer == nil {
		o.Observer = noObserver{}
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return o
}
