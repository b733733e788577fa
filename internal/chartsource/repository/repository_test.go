package repository_test

import (
	"errors"
	"testing"

	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
)

func TestSelect(t *testing.T) {
	versions := []string{"1.0.0", "v1.2.0", "1.10.0", "2.0.0-rc.1", "not-a-version", "1.2", "1.5.0+a", "1.5.0+b"}
	for name, tc := range map[string]struct {
		rng  string
		want string
		err  string
	}{
		"an exact version":                         {"1.0.0", "1.0.0", ""},
		"text that equals, whatever it is":         {"not-a-version", "not-a-version", ""},
		"the highest of all, without pre-releases": {"", "1.10.0", ""},
		"a star is the same":                       {"*", "1.10.0", ""},
		"a range":                                  {"~1.2", "v1.2.0", ""},
		"a range that allows pre-releases":         {">=1.0.0-0", "2.0.0-rc.1", ""},
		"of two builds the newer":                  {"~1.5.0", "1.5.0+b", ""},
		"nothing within the range":                 {"3.x", "", `no version within "3.x": not found`},
		"an invalid range":                         {"one", "", `the version "one" is not a semantic version range`},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := repository.Select(versions, tc.rng, func(i, j int) bool { return i < j })
			if err != nil {
				if err.Error() != tc.err || errors.Is(err, repository.ErrNotFound) != (tc.rng == "3.x") {
					t.Errorf("Select: %v, want %s", err, tc.err)
				}
				return
			}
			if versions[i] != tc.want {
				t.Errorf("selected %s, want %s", versions[i], tc.want)
			}
		})
	}
}

func TestIndexURL(t *testing.T) {
	for name, tc := range map[string]struct{ repository, chart, index, archive string }{
		"a relative address":              {"https://example.com/charts", "app-1.tgz", "https://example.com/charts/index.yaml", "https://example.com/charts/app-1.tgz"},
		"a slash at the end":              {"https://example.com/charts/", "app-1.tgz", "https://example.com/charts/index.yaml", "https://example.com/charts/app-1.tgz"},
		"a host alone":                    {"https://example.com", "x/app-1.tgz", "https://example.com/index.yaml", "https://example.com/x/app-1.tgz"},
		"an absolute address":             {"https://example.com/charts", "https://cdn.example.com/a.tgz", "https://example.com/charts/index.yaml", "https://cdn.example.com/a.tgz"},
		"a query stays":                   {"https://example.com/charts?token=x", "a.tgz", "https://example.com/charts/index.yaml?token=x", "https://example.com/charts/a.tgz?token=x"},
		"an address from the host's root": {"https://example.com/charts", "/a.tgz", "https://example.com/charts/index.yaml", "https://example.com/a.tgz"},
	} {
		t.Run(name, func(t *testing.T) {
			index, err := repository.IndexURL(tc.repository)
			if err != nil || index != tc.index {
				t.Errorf("IndexURL = %s, %v; want %s", index, err, tc.index)
			}
			archive, err := repository.ChartURL(tc.repository, repository.Version{URL: tc.chart})
			if err != nil || archive != tc.archive {
				t.Errorf("ChartURL = %s, %v; want %s", archive, err, tc.archive)
			}
		})
	}
	if _, err := repository.ChartURL("https://example.com", repository.Version{Version: "1.0.0"}); err == nil || err.Error() != "the repository has no URL for version 1.0.0" {
		t.Errorf("ChartURL without an address: %v", err)
	}
}
