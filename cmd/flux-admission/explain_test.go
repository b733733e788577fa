package main

import (
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	for _, given := range []string{"kustomization-namespace", "Kustomization-Namespace", "KS001", "ks001"} {
		code, stdout, stderr := execute(t, "explain", given)
		if code != 0 || !strings.HasPrefix(stdout, "kustomization-namespace (KS001)\n") || stderr != "" {
			t.Errorf("%s: exit code %d, error %q, output %q", given, code, stderr, stdout)
		}
	}
}

func TestExplain_InvalidArguments(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"a misspelled name gets a suggestion": {
			[]string{"explain", "helm-value-schema"},
			`flux-admission: there is no rule "helm-value-schema"; did you mean helm-values-schema?`,
		},
		"an unknown name points to the list": {
			[]string{"explain", "zebra"}, "flux-admission: there is no rule \"zebra\"; `flux-admission rules` lists them",
		},
		"no name": {
			[]string{"explain"},
			"flux-admission: explain takes the name or ID of one rule, got 0 arguments; `flux-admission rules` lists them",
		},
		"two names": {
			[]string{"explain", "KS001", "KS002"},
			"flux-admission: explain takes the name or ID of one rule, got 2 arguments; `flux-admission rules` lists them",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, c.args...)
			if code != exitUsage || stdout != "" || strings.TrimSpace(stderr) != c.want {
				t.Errorf("exit code %d, output %q, error %q; want 2 and %q", code, stdout, stderr, c.want)
			}
		})
	}
}
