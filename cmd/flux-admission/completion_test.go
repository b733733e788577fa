package main

import (
	"slices"
	"strings"
	"testing"

	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// offered returns the completions that the script of a shell gets, without descriptions, and the directive.
func offered(t *testing.T, args ...string) (words []string, directive string) {
	t.Helper()
	code, stdout, stderr := execute(t, append([]string{"__complete"}, args...)...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(stdout), "\n") {
		word, _, _ := strings.Cut(line, "\t")
		words = append(words, word)
	}
	last := len(words) - 1
	return words[:last], words[last]
}

func TestCompletion(t *testing.T) {
	const noFiles, byExtension, directories = ":4", ":8", ":16"
	var names []string
	for _, r := range allvalidators.Rules() {
		names = append(names, r.Name)
	}
	cases := map[string]struct {
		args      []string
		want      []string
		directive string
	}{
		"formats of a report": {
			[]string{"check", "--output", ""}, []string{"text", "json", "sarif", "junit", "github", "html", "markdown"}, noFiles,
		},
		"values of --fail-on":          {[]string{"check", "--fail-on", ""}, []string{"deny", "warn", "unknown", "never"}, noFiles},
		"formats of the list of rules": {[]string{"rules", "-o", ""}, []string{"text", "wide", "json"}, noFiles},
		"all names of rules":           {[]string{"explain", ""}, names, noFiles},
		"names of rules with a prefix": {
			[]string{"explain", "kustomization-dep"},
			[]string{"kustomization-dependency-missing", "kustomization-dependency-cycle"}, noFiles,
		},
		"IDs of rules with a prefix": {[]string{"explain", "PG001"}, []string{"PG001"}, noFiles},
		"no second rule":             {[]string{"explain", "KS001", ""}, []string{}, noFiles},
		"names of rules to repair":   {[]string{"fix", "--rule", "source-m"}, []string{"source-missing"}, noFiles},
		"YAML files for a policy":    {[]string{"check", "--policy", ""}, []string{"yaml", "yml"}, byExtension},
		"directories of charts":      {[]string{"check", "--charts", ""}, []string{}, directories},
		"directories to repair":      {[]string{"fix", ""}, []string{}, directories},
		"no files for a variable":    {[]string{"fix", "--var", ""}, []string{}, noFiles},
		"levels of the log": {
			[]string{"serve", "--log-level", ""}, []string{"debug", "info", "warn", "error"}, noFiles,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got, directive := offered(t, c.args...); !slices.Equal(got, c.want) || directive != c.directive {
				t.Errorf("offered %q %s, want %q %s", got, directive, c.want, c.directive)
			}
		})
	}
}

func TestCompletion_Scripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, stdout, stderr := execute(t, "completion", shell); code != 0 || !strings.Contains(stdout, "flux-admission") {
			t.Errorf("%s: exit code %d, %d bytes of script, error %q", shell, code, len(stdout), stderr)
		}
	}
}
