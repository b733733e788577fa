// Package registry reads charts from OCI registries: the tag that Flux would select, and the chart's layer of its
// manifest.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
)

// ChartLayer is the media type of a packaged chart, as Helm pushes it.
const ChartLayer = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

// The limits of a registry's responses.
const (
	maxTags     = 20_000
	maxManifest = 4 << 20
)

// ErrNotFound is the error of a repository, tag or digest that the registry does not have.
var ErrNotFound = repository.ErrNotFound

// Repository is one repository of a registry. It serves one chart, and is then closed.
type Repository struct {
	remote *remote.Repository
	client *fetch.Client
}

// Open returns the repository at an oci:// URL. Insecure uses http instead of https; see fetch.NewClient for
// allowLoopback.
func Open(raw string, c fetch.Credentials, insecure, allowLoopback bool) (*Repository, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "oci" || u.Host == "" || strings.Trim(u.Path, "/") == "" {
		return nil, errors.New("its URL is not an oci:// URL with a registry and a repository")
	}
	r, err := remote.NewRepository(u.Host + "/" + strings.Trim(u.Path, "/"))
	if err != nil {
		return nil, errors.New("its URL names no repository of an OCI registry")
	}
	scheme := "https://"
	if insecure {
		scheme = "http://"
	}
	client, err := fetch.NewClient(scheme+u.Host, c, allowLoopback)
	if err != nil {
		return nil, err
	}
	r.PlainHTTP = insecure
	r.MaxMetadataBytes = maxManifest
	r.Client = &auth.Client{
		Client: client.HTTP(),
		Cache:  auth.NewCache(),
		Credential: func(_ context.Context, hostport string) (auth.Credential, error) {
			if hostport != u.Host && !c.PassCredentials {
				return auth.EmptyCredential, nil
			}
			return auth.Credential{Username: c.Username, Password: c.Password}, nil
		},
	}
	return &Repository{remote: r, client: client}, nil
}

// Close releases the connections.
func (r *Repository) Close() { r.client.Close() }

// Tag returns the tag of a chart's version, as Helm and source-controller select it: an exact version is its own tag, a
// range selects among the repository's tags. A plus sign in a version is an underscore in its tag.
func (r *Repository) Tag(ctx context.Context, rng string) (string, error) {
	if _, err := semver.StrictNewVersion(strings.TrimPrefix(rng, "v")); err == nil {
		return strings.ReplaceAll(rng, "+", "_"), nil
	}
	tags, err := r.tags(ctx)
	if err != nil {
		return "", err
	}
	versions := make([]string, len(tags))
	for i, t := range tags {
		versions[i] = strings.ReplaceAll(t, "_", "+")
	}
	i, err := repository.Select(versions, rng, nil)
	if err != nil {
		return "", err
	}
	return tags[i], nil
}

// Latest returns the highest tag within a range, of those that keep accepts, as source-controller does for an
// OCIRepository. An error of keep is returned.
func (r *Repository) Latest(ctx context.Context, rng string, keep func(tag string) (bool, error)) (string, error) {
	tags, err := r.tags(ctx)
	if err != nil {
		return "", err
	}
	var kept []string
	for _, t := range tags {
		ok, err := keep(t)
		if err != nil {
			return "", err
		}
		if ok {
			kept = append(kept, t)
		}
	}
	i, err := repository.Select(kept, rng, nil)
	if err != nil {
		return "", err
	}
	return kept[i], nil
}

func (r *Repository) tags(ctx context.Context) ([]string, error) {
	var tags []string
	err := r.remote.Tags(ctx, "", func(page []string) error {
		if tags = append(tags, page...); len(tags) > maxTags {
			return fmt.Errorf("the repository has more than %d tags", maxTags)
		}
		return nil
	})
	return tags, explain("listing the tags", err)
}

// Layer is the layer of a manifest that contains the chart.
type Layer struct {
	// Digest is the SHA-256 of the layer in hex; empty when the manifest has a digest of another algorithm.
	Digest string
	desc   ocispec.Descriptor
}

// Layer finds the chart's layer in the manifest of a tag or digest: the one of the media type, else of Helm's, else the
// first.
func (r *Repository) Layer(ctx context.Context, reference, mediaType string) (Layer, error) {
	desc, err := r.remote.Resolve(ctx, reference)
	if err != nil {
		return Layer{}, explain("resolving "+reference, err)
	}
	if desc.Size > maxManifest {
		return Layer{}, fmt.Errorf("the manifest of %s has %d bytes, more than %d", reference, desc.Size, maxManifest)
	}
	data, err := content.FetchAll(ctx, r.remote, desc)
	if err != nil {
		return Layer{}, explain("reading the manifest of "+reference, err)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return Layer{}, fmt.Errorf("the manifest of %s is not an OCI manifest", reference)
	}
	if len(manifest.Layers) == 0 {
		return Layer{}, fmt.Errorf("the manifest of %s has no layers", reference)
	}
	layer := manifest.Layers[0]
	for _, want := range []string{ChartLayer, mediaType} {
		if i := slices.IndexFunc(manifest.Layers, func(d ocispec.Descriptor) bool { return want != "" && d.MediaType == want }); i >= 0 {
			layer = manifest.Layers[i]
		} else if want == mediaType && want != "" {
			return Layer{}, fmt.Errorf("the manifest of %s has no layer of type %s", reference, mediaType)
		}
	}
	if err := layer.Digest.Validate(); err != nil {
		return Layer{}, fmt.Errorf("the manifest of %s has a layer without a digest", reference)
	}
	out := Layer{desc: layer}
	if layer.Digest.Algorithm() == digest.SHA256 {
		out.Digest = layer.Digest.Encoded()
	}
	return out, nil
}

// Pull reads a layer of at most limit bytes and checks its digest.
func (r *Repository) Pull(ctx context.Context, l Layer, limit int64) (data []byte, err error) {
	if l.desc.Size > limit || l.desc.Size < 0 {
		return nil, fmt.Errorf("the chart's layer has %d bytes, more than %d", l.desc.Size, limit)
	}
	body, err := r.remote.Fetch(ctx, l.desc)
	if err != nil {
		return nil, explain("reading the chart's layer", err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	data, err = content.ReadAll(io.LimitReader(body, limit+1), l.desc)
	if err != nil {
		return nil, explain("reading the chart's layer", err)
	}
	return data, nil
}

// explain adds what was being done to an error of the registry, and removes the query of its URL.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	var response *errcode.ErrorResponse
	switch {
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%s: the registry requires a login: the source's credentials are missing or rejected", doing)
	case errors.Is(err, errdef.ErrNotFound):
		return fmt.Errorf("%s: %w", doing, ErrNotFound)
	case errors.As(err, &response):
		u := ""
		if response.URL != nil {
			u = fetch.RedactedURL(response.URL)
		}
		status := &fetch.StatusError{URL: u, Code: response.StatusCode}
		if response.StatusCode == 404 {
			return fmt.Errorf("%s: %w: %w", doing, ErrNotFound, status)
		}
		return fmt.Errorf("%s: %w", doing, status)
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("%s: %w", doing, failed.Err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
