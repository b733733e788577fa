package helmchart

import (
	"slices"

	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// memoryOf estimates the memory of a chart without its subcharts and schemas, in bytes.
func memoryOf(c *chart.Chart) int64 {
	// Composing values with subcharts keeps Helm's merged values beside the charts' own.
	n := 4096 + 3*memoryOfValue(c.Values)
	for _, f := range slices.Concat(c.Templates, c.Files) {
		n += int64(len(f.Data) + len(f.Name))
	}
	return n
}

// memoryOfValue estimates the memory of a decoded value, in bytes.
func memoryOfValue(v any) int64 {
	n := int64(16)
	switch v := v.(type) {
	case string:
		n += int64(len(v))
	case map[string]any:
		n += 160 // a map of one key takes 320
		for k, c := range v {
			n += int64(len(k)) + 48 + memoryOfValue(c)
		}
	case []any:
		for _, c := range v {
			n += memoryOfValue(c)
		}
	}
	return n
}
