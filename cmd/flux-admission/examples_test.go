package main

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamples_Flux checks the examples in manifests/examples/flux in the tree of a cluster, as their reader would: the source of the
// kustomizations is the directory manifests, and the chart is in it. A path or value that does not exist is then found.
func TestExamples_Flux(t *testing.T) {
	const sync = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1m, url: "https://git.example.com/fleet.git", ref: {branch: main}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec:
  interval: 10m
  path: ./clusters/production
  prune: true
  sourceRef: {kind: GitRepository, name: flux-system}
`
	manifests := filepath.Join(root, "manifests")
	for example, c := range map[string]struct {
		args    []string
		objects string
		mistake string // in place of instead
		instead string
		rule    string // finds the mistake
		code    int    // with the mistake: the policy of the first example is AuditOnly
	}{
		"flux-admission.yaml": {
			[]string{"--source", "flux-admission=" + manifests}, "28 objects of 3 Kustomizations", "./overlays/self-manged", "./overlays/self-managed", "KS005", 0,
		},
		"helm.yaml": {
			[]string{"--charts", filepath.Join(manifests, "chart")}, "5 objects of 1 Kustomization", "auditsOnly: true", "auditOnly: true", "HR001", 1,
		},
	} {
		t.Run(example, func(t *testing.T) {
			text := string(read(t, filepath.Join("manifests", "examples", "flux", example)))
			files := map[string]string{"clusters/production/flux-system/gotk-sync.yaml": sync, "clusters/production/example.yaml": text}
			args := append([]string{"check", "--no-progress", "--fail-on=unknown"}, c.args...)
			code, stdout, stderr := execute(t, append(args, writeTree(t, files))...)
			if code != 0 || !strings.Contains(stdout, "No findings in "+c.objects) {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
			broken := maps.Clone(files)
			broken["clusters/production/example.yaml"] = strings.Replace(text, c.instead, c.mistake, 1)
			if code, stdout, _ := execute(t, append(args, writeTree(t, broken))...); code != c.code || !strings.Contains(stdout, c.rule) {
				t.Errorf("with %s: exit code %d\n%s", c.mistake, code, stdout)
			}
		})
	}
}
