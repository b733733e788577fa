package chartsource

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
)

// The limits of documents that schemas refer to.
const (
	maxSchemaBytes     = 4 << 20
	maxSchemaDocuments = 64
	schemaTimeout      = 15 * time.Second
)

// schemaDocuments loads and caches the documents that schemas refer to. It is safe for concurrent use.
type schemaDocuments struct {
	opts Options

	mu    sync.Mutex
	items map[string]schemaDocument
}

// schemaDocument is a document, or the error of loading it.
type schemaDocument struct {
	data    []byte
	err     error
	expires time.Time
}

func newSchemaDocuments(opts Options) *schemaDocuments {
	return &schemaDocuments{opts: opts, items: map[string]schemaDocument{}}
}

// loader returns a function that loads documents from the allowed hosts; nil when there are none.
func (s *schemaDocuments) loader(ctx context.Context) schema.Load {
	if len(s.opts.SchemaHosts) == 0 {
		return nil
	}
	return func(raw string) ([]byte, error) { return s.load(ctx, raw) }
}

func (s *schemaDocuments) load(ctx context.Context, raw string) ([]byte, error) {
	u, err := url.Parse(raw)
	if err != nil || !slices.Contains(s.opts.SchemaHosts, u.Host) {
		return nil, fmt.Errorf("%w: the host is not allowed for schemas", fetch.ErrRefused)
	}
	s.mu.Lock()
	d, ok := s.items[raw]
	s.mu.Unlock()
	if ok && s.opts.Clock().Before(d.expires) {
		return d.data, d.err
	}
	d.data, d.err = s.fetch(ctx, raw)
	lifetime := s.opts.TTL
	if d.err != nil {
		lifetime = s.opts.NegativeTTL
	}
	d.expires = s.opts.Clock().Add(lifetime)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.items) >= maxSchemaDocuments {
		clear(s.items)
	}
	s.items[raw] = d
	return d.data, d.err
}

func (s *schemaDocuments) fetch(ctx context.Context, raw string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	client, err := fetch.NewClient(raw, fetch.Credentials{}, s.opts.AllowLoopback)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Get(ctx, raw, maxSchemaBytes)
}
