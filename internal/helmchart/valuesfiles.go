package helmchart

import (
	"fmt"
	"path"

	"github.com/fluxcd/pkg/chartutil"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// MergeValuesFiles replaces the chart's values by the named files, merged in order, as source-controller does when it
// packages a chart. The files are read from others, by their cleaned path; when that is nil, from the chart itself,
// whose values.yaml is then one of them. A missing file is a
// validators.MissingValuesFile unless ignoreMissing is set.
func MergeValuesFiles(c *chart.Chart, names []string, others map[string][]byte, ignoreMissing bool) error {
	merged := map[string]any{}
	for _, name := range names {
		values, ok, err := readValuesFile(c, name, others)
		if err != nil {
			return err
		}
		if !ok {
			if ignoreMissing {
				continue
			}
			return &validators.MissingValuesFile{Name: name}
		}
		merged = chartutil.MergeMaps(merged, values)
	}
	// When nothing was merged, the chart keeps its values.
	if len(merged) > 0 {
		c.Values = merged
	}
	return nil
}

// readValuesFile reads one values file; false when there is none. The error quotes nothing of it.
func readValuesFile(c *chart.Chart, name string, others map[string][]byte) (map[string]any, bool, error) {
	var data []byte
	var ok bool
	if others != nil {
		data, ok = others[path.Clean("/" + name)[1:]]
	} else if clean := path.Clean(name); clean == "values.yaml" {
		return c.Values, true, nil
	} else {
		for _, f := range c.Files {
			if f.Name == clean {
				data, ok = f.Data, true
				break
			}
		}
	}
	if !ok {
		return nil, false, nil
	}
	if err := archive.CheckYAML(data); err != nil {
		return nil, false, fmt.Errorf("values file %s: %w", name, err)
	}
	values, err := common.ReadValues(data)
	if err != nil {
		return nil, false, fmt.Errorf("values file %s is not YAML", name)
	}
	return values, true, nil
}
