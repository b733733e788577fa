package chartsource

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/validators"
)

// sourceGroup is the API group of Flux's sources.
const sourceGroup = "source.toolkit.fluxcd.io"

// source is where one chart is fetched from, with the credentials for it.
type source interface {
	fmt.Stringer
	// kind is the kind of the Flux source.
	kind() string
	// tenant is who fetches of the source count for.
	tenant() tenant
	// key identifies the source, its credentials and the chart.
	key() string
	// revision changes when the source is known to have a new chart; empty when only fetching shows that.
	revision() string
	// load fetches the chart, or returns the cached one. The error wraps errAbsent when the source does not have the
	// chart.
	load(ctx context.Context, l *loader) (*cachedChart, error)
}

var (
	errAbsent = errors.New("the chart does not exist")
	errNoURL  = errors.New("it has no URL")
	// errBackoff is the error of a fetch that is not made.
	errBackoff = errors.New("did not respond a short time ago, and is tried again later")
)

// withFallback is the artifact of source-controller if that can be read, and else the source that the artifact comes
// from.
type withFallback struct {
	artifact, fallback source
}

func (f *withFallback) String() string   { return f.fallback.String() }
func (f *withFallback) kind() string     { return f.fallback.kind() }
func (f *withFallback) tenant() tenant   { return f.fallback.tenant() }
func (f *withFallback) key() string      { return join(f.artifact.key(), f.fallback.key()) }
func (f *withFallback) revision() string { return f.artifact.revision() + f.fallback.revision() }

func (f *withFallback) load(ctx context.Context, l *loader) (*cachedChart, error) {
	if key := f.artifact.key(); !l.outages.failed(key) {
		limited, cancel := context.WithTimeout(ctx, l.opts.ArtifactTimeout)
		chart, err := f.artifact.load(limited, l)
		cancel()
		if err == nil {
			l.outages.clear(key)
			return chart, nil
		}
		l.outages.record(key)
		l.opts.Log.V(1).Info("Failed to read an artifact, falling back to its source", "source", f.String(), "err", err.Error())
	}
	return f.fallback.load(ctx, l)
}

// tenantOf returns the tenant of a source that is fetched from a URL. Through a proxy, the proxy is the host.
func tenantOf(ref validators.ChartRef, raw string, c fetch.Credentials) tenant {
	t := tenant{namespace: ref.Source.Namespace}
	if c.Proxy != nil {
		t.host = c.Proxy.Host
	} else if u, err := url.Parse(raw); err == nil {
		t.host = u.Host
	}
	return t
}
