// Command alerts writes the rules of a PrometheusRule, and their tests, as promtool reads them.
//
// Usage: alerts PROMETHEUSRULE TEST DIRECTORY
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: alerts PROMETHEUSRULE TEST DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write writes DIR/rules.yaml, the rules without their annotations, which the tests do not repeat, DIR/annotated.yaml, with
// them, and DIR/test.yaml.
func write(rule, test, dir string) error {
	text, err := os.ReadFile(rule)
	if err != nil {
		return fmt.Errorf("reading the rules: %w", err)
	}
	var object struct {
		Spec struct {
			Groups []struct {
				Name  string           `json:"name"`
				Rules []map[string]any `json:"rules"`
			} `json:"groups"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &object); err != nil {
		return fmt.Errorf("reading %s: %w", rule, err)
	}
	if err := writeYAML(filepath.Join(dir, "annotated.yaml"), object.Spec); err != nil {
		return err
	}
	for _, group := range object.Spec.Groups {
		for _, r := range group.Rules {
			delete(r, "annotations")
		}
	}
	if err := writeYAML(filepath.Join(dir, "rules.yaml"), object.Spec); err != nil {
		return err
	}
	tests, err := os.ReadFile(test)
	if err != nil {
		return fmt.Errorf("reading the tests: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "test.yaml"), tests, 0o600); err != nil {
		return fmt.Errorf("writing the tests: %w", err)
	}
	return nil
}

func writeYAML(path string, v any) error {
	text, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("formatting %s: %w", path, err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("writing the rules: %w", err)
	}
	return nil
}
