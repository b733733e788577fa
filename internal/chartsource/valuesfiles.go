package chartsource

import (
	"fmt"
	"path"

	"github.com/fluxcd/pkg/chartutil"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
)

// mergeValuesFiles replaces a chart's values by those of the files, merged in order, as source-controller does when it packages. It fails on
// a file that the chart does not have, unless ignoreMissing.
func mergeValuesFiles(ch *chart.Chart, files []string, ignoreMissing bool) error {
	if len(files) == 0 {
		return nil
	}
	merged := map[string]any{}
	for _, name := range files {
		clean := path.Clean(name)
		if clean == "values.yaml" {
			merged = chartutil.MergeMaps(merged, ch.Values)
			continue
		}
		data, ok := file(ch, clean)
		if !ok {
			if ignoreMissing {
				continue
			}
			return fmt.Errorf("it has no values file %s", name)
		}
		values, err := readValuesFile(name, data)
		if err != nil {
			return err
		}
		merged = chartutil.MergeMaps(merged, values)
	}
	// Nothing merged leaves the chart as it is.
	if len(merged) > 0 {
		ch.Values = merged
	}
	return nil
}

// readValuesFile reads a values file that is not the chart's own. The error quotes nothing of it.
func readValuesFile(name string, data []byte) (map[string]any, error) {
	if err := archive.CheckYAML(data); err != nil {
		return nil, fmt.Errorf("values file %s: %w", name, err)
	}
	values, err := common.ReadValues(data)
	if err != nil {
		return nil, fmt.Errorf("values file %s is not YAML", name)
	}
	return values, nil
}

func file(ch *chart.Chart, name string) ([]byte, bool) {
	for _, f := range ch.Files {
		if f.Name == name {
			return f.Data, true
		}
	}
	return nil, false
}
