// Package chartrepo serves chart directories as a Helm repository over HTTP.
package chartrepo

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/repo/v1"
)

// Serve packages the chart directories below dir, which has to exist and be empty, and serves them with an index. The caller closes the server.
func Serve(dir string, charts ...string) (*httptest.Server, error) {
	for _, path := range charts {
		chart, err := loader.LoadDir(path)
		if err != nil {
			return nil, fmt.Errorf("reading the chart %s: %w", path, err)
		}
		if _, err := chartutil.Save(chart, dir); err != nil {
			return nil, fmt.Errorf("packaging the chart %s: %w", path, err)
		}
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	index, err := repo.IndexDirectory(dir, server.URL)
	if err == nil {
		err = index.WriteFile(filepath.Join(dir, "index.yaml"), os.FileMode(0o600))
	}
	if err != nil {
		server.Close()
		return nil, fmt.Errorf("writing the index of the charts: %w", err)
	}
	return server, nil
}
