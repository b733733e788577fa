// Package repository reads Helm repositories: the index, and the version of a chart that Flux would select from it.
package repository

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	helmrepo "helm.sh/helm/v4/pkg/repo/v1"
	"sigs.k8s.io/yaml"
)

// The sizes that source-controller accepts, in bytes.
const (
	MaxIndexBytes = 50 << 20
	MaxChartBytes = 10 << 20
)

// ErrNotFound is the error of a chart or version that the index does not have.
var ErrNotFound = errors.New("not found")

// Version is one version of a chart in an index.
type Version struct {
	Version string
	// URL is where the archive is, absolute or relative to the repository.
	URL string
	// Digest is the SHA-256 of the archive in hex; empty when the index has none.
	Digest  string
	Created time.Time
}

// Index is the index of a repository. It is immutable.
type Index struct {
	entries map[string][]Version
	// Bytes is the size of the source.
	Bytes int
}

// ParseIndex parses an index.yaml, in YAML or JSON. It keeps what selecting a chart needs.
func ParseIndex(data []byte) (*Index, error) {
	var file helmrepo.IndexFile
	if err := yaml.Unmarshal(data, &file); err != nil {
		return nil, errors.New("the repository's index is not a YAML index of Helm")
	}
	if file.APIVersion == "" {
		return nil, errors.New("the repository's index has no apiVersion")
	}
	idx := &Index{entries: make(map[string][]Version, len(file.Entries)), Bytes: len(data)}
	for name, versions := range file.Entries {
		for _, v := range versions {
			if v == nil || v.Metadata == nil {
				continue
			}
			out := Version{Version: v.Version, Digest: strings.ToLower(strings.TrimPrefix(v.Digest, "sha256:")), Created: v.Created}
			if len(v.URLs) > 0 {
				out.URL = v.URLs[0] // as source-controller does
			}
			idx.entries[name] = append(idx.entries[name], out)
		}
	}
	return idx, nil
}

// Find returns the version of a chart that a range selects: the version that equals it, else the highest within it. An
// empty range selects the highest that is no pre-release. The error is ErrNotFound when there is none.
func (x *Index) Find(name, rng string) (Version, error) {
	versions := x.entries[name]
	if len(versions) == 0 {
		return Version{}, fmt.Errorf("the repository has no chart %q: %w", name, ErrNotFound)
	}
	texts := make([]string, len(versions))
	for i, v := range versions {
		texts[i] = v.Version
	}
	i, err := Select(texts, rng, func(i, j int) bool { return versions[i].Created.Before(versions[j].Created) })
	if err != nil {
		return Version{}, fmt.Errorf("chart %q: %w", name, err)
	}
	return versions[i], nil
}

// Select returns the index of the version that a range selects, as source-controller does: the version that equals the
// range, else the highest within it. Older breaks ties between versions that differ only in their build metadata; it
// may be nil. The error is ErrNotFound when there is none.
func Select(versions []string, rng string, older func(i, j int) bool) (int, error) {
	if rng != "" {
		if i := slices.Index(versions, rng); i >= 0 {
			return i, nil
		}
	} else {
		rng = "*"
	}
	constraint, err := semver.NewConstraint(rng)
	if err != nil {
		return 0, fmt.Errorf("the version %q is not a semantic version range", rng)
	}
	best := -1
	var bestVersion *semver.Version
	for i, text := range versions {
		v, err := semver.StrictNewVersion(strings.TrimPrefix(text, "v"))
		if err != nil || !constraint.Check(v) {
			continue
		}
		if best < 0 || bestVersion.LessThan(v) || bestVersion.Equal(v) && older != nil && older(best, i) {
			best, bestVersion = i, v
		}
	}
	if best < 0 {
		return 0, fmt.Errorf("no version within %q: %w", rng, ErrNotFound)
	}
	return best, nil
}

// IndexURL returns the URL of a repository's index.
func IndexURL(repository string) (string, error) {
	u, err := url.Parse(repository)
	if err != nil {
		return "", errors.New("the repository's URL is invalid")
	}
	u.RawPath = path.Join(u.RawPath, "index.yaml")
	u.Path = path.Join(u.Path, "index.yaml")
	return u.String(), nil
}

// ChartURL returns the URL of a chart's archive.
func ChartURL(repository string, v Version) (string, error) {
	if v.URL == "" {
		return "", fmt.Errorf("the repository has no URL for version %s", v.Version)
	}
	u, err := helmrepo.ResolveReferenceURL(repository, v.URL)
	if err != nil {
		return "", fmt.Errorf("the repository has an invalid URL for version %s", v.Version)
	}
	return u, nil
}
