package archive

import (
	"fmt"

	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// The limits of composing a chart: Helm copies a subchart for every alias, at every level, and copies values for every
// import.
const (
	maxCharts       = 1_000
	maxDependencies = 500
	maxImports      = 500
	maxConditions   = 100_000 // bytes of names, conditions and tags
	maxValues       = 300_000 // maps, lists and scalars
)

// checkTree rejects a chart whose composition would exceed the limits.
func checkTree(c *chart.Chart) error {
	imports, conditions, values := 0, 0, 0
	var check func(c *chart.Chart) (int, error)
	check = func(c *chart.Chart) (int, error) {
		if len(c.Metadata.Dependencies) > maxDependencies {
			return 0, fmt.Errorf("chart %s has %d dependencies, more than %d", quoted(c.Name()), len(c.Metadata.Dependencies), maxDependencies)
		}
		copies := map[string]int{}
		for _, d := range c.Metadata.Dependencies {
			if d == nil {
				continue
			}
			copies[d.Name]++
			imports += len(d.ImportValues)
			conditions += len(d.Name) + len(d.Alias) + len(d.Condition)
			for _, t := range d.Tags {
				conditions += len(t)
			}
		}
		values += nodes(c.Values)
		if Depth(c.Values, maxYAMLNested) >= maxYAMLNested {
			return 0, fmt.Errorf("the values of chart %s are nested deeper than %d", quoted(c.Name()), maxYAMLNested)
		}
		all := 1
		for _, d := range c.Dependencies() {
			n, err := check(d)
			if err != nil {
				return 0, err
			}
			if all += n * max(1, copies[d.Name()]); all > maxCharts {
				return 0, fmt.Errorf("chart %s expands to more than %d charts, aliases included", quoted(c.Name()), maxCharts)
			}
		}
		return all, nil
	}
	_, err := check(c)
	switch {
	case err != nil:
		return err
	case imports > maxImports:
		return fmt.Errorf("the chart imports values %d times, more than %d", imports, maxImports)
	case conditions > maxConditions:
		return fmt.Errorf("the chart's dependencies have names, conditions and tags of %d bytes, more than %d", conditions, maxConditions)
	case values > maxValues:
		return fmt.Errorf("the chart's values have %d nodes, more than %d", values, maxValues)
	}
	return nil
}

// nodes counts the maps, lists and scalars of decoded values.
func nodes(v any) int {
	n := 1
	switch v := v.(type) {
	case map[string]any:
		for _, c := range v {
			n += nodes(c)
		}
	case []any:
		for _, c := range v {
			n += nodes(c)
		}
	}
	return n
}
