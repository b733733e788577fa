package chartsource

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sync/semaphore"
	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/chartsource/disk"
	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// loader prepares the charts that sources provide, and caches them. It is safe for concurrent use.
type loader struct {
	opts     Options
	cache    *cache
	disk     *disk.Store // nil without Options.CacheDir
	crashes  *crashes
	indexes  *indexes
	schemas  *schemaDocuments
	archives *served
	// memory bounds what is decoded at a time; nil for no limit.
	memory *semaphore.Weighted
	// outages are of charts and of artifacts, hosts of the hosts of tenants.
	outages, hosts *outages
}

func newLoader(opts Options) *loader {
	return &loader{
		opts: opts, cache: newCache(opts.CacheBytes), indexes: newIndexes(opts.TTL, opts.Clock),
		schemas: newSchemaDocuments(opts), archives: newServed(), memory: newDecodeMemory(opts), outages: newOutages(opts.NegativeTTL, opts.Clock),
		hosts: newOutages(opts.NegativeTTL/4, opts.Clock),
	}
}

// fromCache returns a chart by its key; nil when it is not in memory.
func (l *loader) fromCache(key string) *cachedChart {
	if c := l.cache.get(key); c != nil {
		return &cachedChart{key, c}
	}
	return nil
}

// fromArchive reads a chart from an archive, checks the archive's SHA-256 (in hex, "" for none) and caches both.
func (l *loader) fromArchive(ctx context.Context, data []byte, wantSum string, ref validators.ChartRef) (*cachedChart, error) {
	hash := sha256.Sum256(data)
	sum := hex.EncodeToString(hash[:])
	if wantSum != "" && wantSum != sum {
		return nil, fmt.Errorf("the archive has the digest sha256:%s, want sha256:%s", sum, wantSum)
	}
	key := cacheKey(sum, ref)
	if c := l.fromCache(key); c != nil {
		return c, nil
	}
	done, err := l.decoding(ctx, func() int64 { return decodeWeight(data) })
	if err != nil {
		return nil, err
	}
	defer done()
	ch, err := archive.Read(bytes.NewReader(data), l.opts.Limits, ref.ValuesFiles...)
	if err != nil {
		return nil, err
	}
	if err := helmchart.MergeValuesFiles(ch, ref.ValuesFiles, nil, ref.IgnoreMissingValuesFiles); err != nil {
		return nil, err
	}
	c := &cachedChart{key, l.chart(ctx, ch, false)}
	l.cache.put(key, c.chart)
	if l.disk != nil {
		if _, err := l.disk.Put(data); err != nil {
			l.opts.Log.Error(err, "Failed to write a chart to the cache directory")
		}
	}
	return c, nil
}

// fromTree parses the chart that a reference names in the archive of a source tree, and caches it.
func (l *loader) fromTree(ctx context.Context, key string, tree *archive.Artifact, ref validators.ChartRef) (*cachedChart, error) {
	done, err := l.decoding(ctx, func() int64 { return decodeMemory })
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := l.treeChart(ctx, tree, ref)
	if err != nil {
		return nil, err
	}
	l.cache.put(key, c)
	return &cachedChart{key, c}, nil
}

// treeChart parses the chart that a reference names in the archive of a source tree.
func (l *loader) treeChart(ctx context.Context, tree *archive.Artifact, ref validators.ChartRef) (*helmchart.Chart, error) {
	ch, files, err := tree.Chart()
	if err != nil {
		return nil, err
	}
	// The paths of values files are those in the source, not in the chart.
	if err := helmchart.MergeValuesFiles(ch, ref.ValuesFiles, files, ref.IgnoreMissingValuesFiles); err != nil {
		return nil, err
	}
	return l.chart(ctx, ch, true), nil
}

// chart prepares a chart.
func (l *loader) chart(ctx context.Context, ch *chart.Chart, unpackaged bool) *helmchart.Chart {
	return helmchart.New(ch, helmchart.Options{LoadSchema: l.schemas.loader(ctx), Templates: l.opts.Templates, Unpackaged: unpackaged})
}

// fromDisk returns the chart that a reference had before a restart; nil when there is none in the cache directory.
func (l *loader) fromDisk(ctx context.Context, reference string) (*cachedChart, error) {
	if l.disk == nil {
		return nil, nil
	}
	key, err := l.disk.Reference(reference)
	if err != nil {
		return nil, nil //nolint:nilerr // nothing is known of the reference
	}
	sum, ref, ok := parseCacheKey(key)
	if !ok {
		return nil, nil
	}
	if c := l.fromCache(key); c != nil {
		return c, nil
	}
	data, err := l.disk.Get(sum)
	if err != nil {
		return nil, err
	}
	return l.fromArchive(ctx, data, sum, ref)
}

// toDisk records the archive of a reference in the cache directory. A chart of a source tree has no archive.
func (l *loader) toDisk(reference, key string) {
	if _, _, ok := parseCacheKey(key); !ok || l.disk == nil {
		return
	}
	if err := l.disk.PutReference(reference, key); err != nil {
		l.opts.Log.Error(err, "Failed to write a reference to the cache directory")
	}
}

// fromHost calls load, which fetches from the host of a tenant. It does not if that host did not respond to the tenant a
// short time ago. Another tenant may reach it: through another proxy, or with another certificate.
func (l *loader) fromHost(t tenant, load func() (*cachedChart, error)) (*cachedChart, error) {
	key := join(t.namespace, t.host)
	if l.hosts.failed(key) {
		return nil, fmt.Errorf("%s %w", t.host, errBackoff)
	}
	c, err := load()
	if _, ok := errors.AsType[net.Error](err); ok {
		l.hosts.record(key)
	} else {
		l.hosts.clear(key)
	}
	return c, err
}

// close closes the directories.
func (l *loader) close() {
	if err := l.crashes.close(); err != nil {
		l.opts.Log.Error(err, "Failed to close the state directory")
	}
	if l.disk == nil {
		return
	}
	if err := l.disk.Close(); err != nil {
		l.opts.Log.Error(err, "Failed to close the cache directory")
	}
}
