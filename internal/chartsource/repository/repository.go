// Package repository reads Helm repositories: the index, and the version of a chart that Flux would select from it.
package repository

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	helmrepo "helm.sh/helm/v4/pkg/repo/v1"
)

// The sizes that source-controller accepts, in bytes.
const (
	MaxIndexBytes = 50 << 20
	MaxChartBytes = 10 << 20
)

// maxRange bounds a version range, which every version is compared with.
const maxRange = 1024

// ErrNotFound is the error of a chart or version that the index does not have.
var ErrNotFound = errors.New("not found")

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
	if len(rng) > maxRange {
		return 0, fmt.Errorf("the version range has %d bytes, more than %d", len(rng), maxRange)
	}
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
