package chartsource

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
)

// The limits of what schemas refer to.
const (
	maxRemoteSchema  = 4 << 20
	maxRemoteSchemas = 64
	remoteTimeout    = 15 * time.Second
)

// remoteSchema is a document that schemas refer to, or why it could not be read.
type remoteSchema struct {
	data    []byte
	err     error
	expires time.Time
}

// schemaLoader returns what reads the documents that schemas refer to, from the hosts that are allowed; nil when none is.
func (r *Resolver) schemaLoader(ctx context.Context) schema.Load {
	if len(r.opts.SchemaHosts) == 0 {
		return nil
	}
	return func(raw string) ([]byte, error) {
		u, err := url.Parse(raw)
		if err != nil || !slices.Contains(r.opts.SchemaHosts, u.Host) {
			return nil, fmt.Errorf("%w: schemas may not refer there", fetch.ErrRefused)
		}
		r.mu.Lock()
		known, ok := r.remote[raw]
		r.mu.Unlock()
		if ok && r.opts.Clock().Before(known.expires) {
			return known.data, known.err
		}
		data, err := r.readSchema(ctx, raw)
		lifetime := r.opts.Fresh
		if err != nil {
			lifetime = r.opts.Remember
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.remote) >= maxRemoteSchemas {
			clear(r.remote)
		}
		r.remote[raw] = remoteSchema{data: data, err: err, expires: r.opts.Clock().Add(lifetime)}
		return data, err
	}
}

func (r *Resolver) readSchema(ctx context.Context, raw string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	client, err := fetch.NewClient(raw, fetch.Credentials{}, r.opts.AllowLocal)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Get(ctx, raw, maxRemoteSchema)
}
