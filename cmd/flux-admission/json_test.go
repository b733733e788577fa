package main

import (
	"strings"
	"testing"
)

const (
	jsonDeployment = `{
	"apiVersion": "apps/v1",
	"kind": "Deployment",
	"metadata": {"name": "web", "namespace": "apps"},
	"spec": {
		"replicaz": 1,
		"selector": {"matchLabels": {"app": "web"}},
		"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
	}
}
`
	jsonRelease = `{"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": {"name": "web", "namespace": "apps"},
"spec": {"interval": "10m", "chartRef": {"kind": "OCIRepository", "name": "web"}}}
`
	dashboard = `{"title": "a", "panels": [{"apiVersion": "x", "kind": "y"}]}`
)

func TestCheck_JSONManifests(t *testing.T) {
	list := func(name string) string {
		return "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [" + name + "]\n"
	}
	for _, test := range []struct {
		name  string
		files map[string]string
		code  int
		want  []string
		not   []string
	}{
		{
			name:  "a directory of plain manifests",
			files: map[string]string{"web.json": jsonDeployment, "dashboard.json": dashboard, "renovate.json": `{"kind": "x"}`},
			code:  1,
			want:  []string{"web.json\n  6:3  deny  Deployment apps/web  SC001", "in 1 object"},
			not:   []string{"dashboard.json", "renovate.json"},
		},
		{
			name:  "a list as kubectl writes it",
			files: map[string]string{"all.json": `{"apiVersion": "v1", "kind": "List", "items": [` + jsonDeployment + `]}`},
			code:  1,
			want:  []string{"spec.replicaz", "in 1 object"},
		},
		{
			name:  "a mistake in the text",
			files: map[string]string{"web.json": strings.Replace(jsonDeployment, `1,`, `1`, 1)},
			code:  1,
			want:  []string{"web.json\n", "FI002"},
		},
		{
			name:  "no manifest but a template of one",
			files: map[string]string{"web.json": `{"apiVersion": "v1", "kind": {{ .Kind }} }`},
			code:  2,
			want:  []string{"Nothing was checked"},
		},
		{
			name:  "listed in a kustomization.yaml",
			files: map[string]string{"clusters/home/gotk-sync.yaml": gotkSync, "clusters/home/kustomization.yaml": list("gotk-sync.yaml, web.json"), "clusters/home/web.json": jsonDeployment},
			code:  1,
			want:  []string{"  6:3  deny  Deployment apps/web  SC001"},
		},
		{
			name:  "left out of a kustomization.yaml",
			files: map[string]string{"clusters/home/gotk-sync.yaml": gotkSync, "clusters/home/kustomization.yaml": list("gotk-sync.yaml"), "clusters/home/web.json": jsonRelease},
			want:  []string{"KS009", "clusters/home/kustomization.yaml does not list web.json"},
		},
		{
			name:  "in a directory without a kustomization.yaml",
			files: map[string]string{"clusters/home/gotk-sync.yaml": gotkSync, "clusters/home/web.json": jsonRelease, "clusters/home/deployment.json": jsonDeployment},
			want:  []string{"KS009", "no Kustomization applies this HelmRelease; without a kustomization.yaml Flux applies files that end in .yaml or .yml only"},
			not:   []string{"replicaz"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, out, stderr := execute(t, "check", writeTree(t, test.files))
			if code != test.code {
				t.Errorf("exit code is %d, want %d; %s", code, test.code, stderr)
			}
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			for _, not := range test.not {
				if strings.Contains(out, not) {
					t.Errorf("%q in\n%s", not, out)
				}
			}
		})
	}
}
