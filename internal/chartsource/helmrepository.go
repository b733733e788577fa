package chartsource

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// helmRepository is a chart in a HelmRepository over HTTP.
type helmRepository struct {
	ref         validators.ChartRef
	url         string
	credentials fetch.Credentials
	fingerprint string
}

func newHelmRepository(ctx context.Context, objects validators.Lookup, obj *unstructured.Unstructured, ref validators.ChartRef) (source, error) {
	url, _, _ := unstructured.NestedString(obj.Object, "spec", "url")
	if url == "" {
		return nil, errNoURL
	}
	if kind, _, _ := unstructured.NestedString(obj.Object, "spec", "type"); kind == "oci" || strings.HasPrefix(url, "oci://") {
		return newHelmRepositoryOCI(ctx, objects, obj, ref, url)
	}
	c, fingerprint, err := credentials(ctx, objects, obj, url)
	if err != nil {
		return nil, err
	}
	return &helmRepository{ref: ref, url: url, credentials: c, fingerprint: fingerprint}, nil
}

func (h *helmRepository) kind() string     { return "HelmRepository" }
func (h *helmRepository) revision() string { return "" }

func (h *helmRepository) String() string {
	return fmt.Sprintf("chart %s %s of HelmRepository %s/%s", h.ref.Chart, anyVersion(h.ref.Version), h.ref.Source.Namespace, h.ref.Source.Name)
}

// repositoryKey identifies the repository as this source sees it.
func (h *helmRepository) repositoryKey() string {
	return join("HelmRepository", h.ref.Source.Namespace, h.ref.Source.Name, h.url, h.fingerprint)
}

func (h *helmRepository) key() string {
	return join(h.repositoryKey(), h.ref.Chart, h.ref.Version, valuesKey(h.ref))
}

func valuesKey(ref validators.ChartRef) string {
	return join(append(slices.Clone(ref.ValuesFiles), fmt.Sprint(ref.IgnoreMissingValuesFiles))...)
}

// parseCacheKey takes apart the key of a chart made of an archive: the archive's digest and the values files.
func parseCacheKey(key string) (digest string, ref validators.ChartRef, ok bool) {
	parts := strings.Split(key, "\x00")
	if len(parts) < 2 || len(parts[0]) != hex.EncodedLen(sha256.Size) {
		return "", ref, false
	}
	ref.ValuesFiles, ref.IgnoreMissingValuesFiles = parts[1:len(parts)-1], parts[len(parts)-1] == "true"
	return parts[0], ref, true
}

func (h *helmRepository) load(ctx context.Context, r *Resolver) (*Chart, error) {
	client, err := fetch.NewClient(h.url, h.credentials, r.opts.AllowLocal)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	index, err := r.indexes.get(ctx, h.repositoryKey(), r.opts, func() (*repository.Index, error) {
		url, err := repository.IndexURL(h.url)
		if err != nil {
			return nil, err
		}
		data, err := client.Get(ctx, url, repository.MaxIndexBytes)
		if err != nil {
			return nil, err
		}
		return repository.ParseIndex(data)
	})
	if err != nil {
		return nil, err
	}
	version, err := index.Find(h.ref.Chart, h.ref.Version)
	if errors.Is(err, repository.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", errAbsent, err)
	}
	if err != nil {
		return nil, err
	}
	// The digest of the index saves a download, but only what was read is believed.
	if version.Digest != "" {
		if c := r.cache.get(join(version.Digest, valuesKey(h.ref))); c != nil {
			return c, nil
		}
	}
	url, err := repository.ChartURL(h.url, version)
	if err != nil {
		return nil, err
	}
	data, err := client.Get(ctx, url, repository.MaxChartBytes)
	if err != nil {
		return nil, err
	}
	return r.fromArchive(ctx, data, version.Digest, h.ref)
}

// fromArchive makes a chart of an archive, checked against the digest that was promised (SHA-256 in hex, "" for none), and caches it.
func (r *Resolver) fromArchive(ctx context.Context, data []byte, digest string, ref validators.ChartRef) (*Chart, error) {
	sum := sha256.Sum256(data)
	actual := hex.EncodeToString(sum[:])
	if digest != "" && digest != actual {
		return nil, fmt.Errorf("the archive's digest is sha256:%s, and sha256:%s was promised", actual, digest)
	}
	key := join(actual, valuesKey(ref))
	if c := r.cache.get(key); c != nil {
		return c, nil
	}
	ch, err := archive.Read(bytes.NewReader(data), r.opts.Limits, ref.ValuesFiles...)
	if err != nil {
		return nil, err
	}
	c, err := prepare(ch, ref.ValuesFiles, ref.IgnoreMissingValuesFiles, r.schemaLoader(ctx), r.opts.Templates)
	if err != nil {
		return nil, err
	}
	c.cacheKey = key
	r.cache.put(key, c)
	if r.disk != nil {
		if _, err := r.disk.Put(data); err != nil {
			r.opts.Log.Error(err, "keeping a chart in the cache directory")
		}
	}
	return c, nil
}

// indexCache holds the indexes of repositories for as long as charts are fresh, so that many charts of one repository cost one download.
type indexCache struct {
	mu    sync.Mutex
	items map[string]*indexEntry
}

type indexEntry struct {
	mu      sync.Mutex // held while the index is read
	index   *repository.Index
	expires time.Time
}

// maxIndexes bounds the repositories whose index is kept.
const maxIndexes = 64

func (c *indexCache) get(ctx context.Context, key string, opts Options, read func() (*repository.Index, error)) (*repository.Index, error) {
	c.mu.Lock()
	e := c.items[key]
	if e == nil {
		if len(c.items) >= maxIndexes {
			c.drop(opts.Clock())
		}
		e = &indexEntry{}
		c.items[key] = e
	}
	c.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.index != nil && opts.Clock().Before(e.expires) {
		return e.index, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("waiting for the repository's index: %w", err)
	}
	index, err := read()
	if err != nil {
		return nil, err
	}
	// An index is asked for again before the charts chosen from it are, or they would be chosen from the old one.
	e.index, e.expires = index, opts.Clock().Add(opts.Fresh/2)
	return index, nil
}

// drop makes room for an index. The mutex is held.
func (c *indexCache) drop(now time.Time) {
	for k, e := range c.items {
		if !e.mu.TryLock() {
			continue // being read
		}
		old := e.index == nil || now.After(e.expires)
		e.mu.Unlock()
		if old {
			delete(c.items, k)
		}
	}
	for k := range c.items {
		if len(c.items) < maxIndexes {
			return
		}
		delete(c.items, k)
	}
}
