// Package variables reads the values of post-build variables that are not in Git.
package variables

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// Read returns the variables of files, later files before earlier ones, and of NAME=VALUE pairs, which take precedence
// over all files.
func Read(files, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("--vars-file: %w", err)
		}
		of, err := Parse(name, data)
		if err != nil {
			return nil, fmt.Errorf("--vars-file: %w", err)
		}
		maps.Copy(out, of)
	}
	of, err := Pairs(list)
	if err != nil {
		return nil, fmt.Errorf("--var %w", err)
	}
	maps.Copy(out, of)
	return out, nil
}

// Pairs returns a list of NAME=VALUE as a map.
func Pairs(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range list {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q: want NAME=VALUE", p)
		}
		out[name] = value
	}
	return out, nil
}

// Parse returns the variables of one file: a YAML or JSON map of scalars if the name ends in .yaml, .yml or .json, else
// NAME=VALUE lines with # comments and an optional "export". Errors do not quote values, which may be secret.
func Parse(name string, data []byte) (map[string]string, error) {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return parseYAML(name, data)
	}
	out := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines.Text()), "export "))
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%s:%d: want NAME=VALUE", name, n)
		}
		if unquoted := strings.Trim(value, `"'`); len(unquoted) == len(value)-2 {
			value = unquoted
		}
		out[key] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

func parseYAML(name string, data []byte) (map[string]string, error) {
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	out := map[string]string{}
	for k, v := range values {
		switch v.(type) {
		case map[string]any, []any:
			return nil, fmt.Errorf("%s: the value of %s is not a scalar: write one NAME: VALUE for each variable", name, k)
		case nil:
			v = ""
		}
		out[k] = fmt.Sprint(v)
	}
	return out, nil
}
