package chartsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
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
func (h *helmRepository) tenant() tenant   { return tenantOf(h.ref, h.url, h.credentials) }

func (h *helmRepository) String() string {
	return fmt.Sprintf("chart %s %s of HelmRepository %s/%s", h.ref.Chart, anyVersion(h.ref.Version), h.ref.Source.Namespace, h.ref.Source.Name)
}

// anyVersion returns the semver range of a version in a spec: an empty one allows any.
func anyVersion(v string) string {
	if v == "" {
		return "*"
	}
	return v
}

// repositoryKey identifies the repository with its credentials.
func (h *helmRepository) repositoryKey() string {
	return join("HelmRepository", h.ref.Source.Namespace, h.ref.Source.Name, h.url, h.fingerprint)
}

func (h *helmRepository) key() string {
	return join(h.repositoryKey(), h.ref.Chart, h.ref.Version, valuesKey(h.ref))
}

func (h *helmRepository) load(ctx context.Context, l *loader) (*cachedChart, error) {
	return l.fromHost(h.tenant(), func() (*cachedChart, error) { return h.fetch(ctx, l) })
}

func (h *helmRepository) fetch(ctx context.Context, l *loader) (*cachedChart, error) {
	client, err := fetch.NewClient(h.url, h.credentials, l.opts.AllowLoopback)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	index, err := l.indexes.get(ctx, h.repositoryKey(), h.ref.Chart, func() (*repository.Index, error) {
		url, err := repository.IndexURL(h.url)
		if err != nil {
			return nil, err
		}
		var index *repository.Index
		err = client.Read(ctx, url, repository.MaxIndexBytes, func(r io.Reader) error {
			index, err = repository.ReadIndex(r, h.ref.Chart, l.opts.Indexes)
			return err
		})
		return index, err
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
	// The index's digest saves a download, if the repository has served the archive before. Otherwise who knows the digest
	// of another tenant's chart could have values validated against it.
	if version.Digest != "" {
		if c := l.served(h.repositoryKey(), cacheKey(version.Digest, h.ref)); c != nil {
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
	c, err := l.fromArchive(ctx, data, version.Digest, h.ref)
	return l.serve(h.repositoryKey(), c, err)
}
