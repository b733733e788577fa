//go:build unix

package kustomization

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/flux-admission/flux-admission/internal/kustomization/build"
)

// generateRepository writes a repository of n Kustomizations under one entry point. Each applies a HelmRelease and
// nine more objects through a kustomization with a namespace, a patch and a ConfigMap generator; half of them
// substitute variables.
func generateRepository(tb testing.TB, n int) string {
	tb.Helper()
	root := tb.TempDir()
	write := func(name, text string) {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	write("clusters/one/flux-system/gotk-sync.yaml", `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1m, url: https://example.com/repo.git}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 10m, path: ./clusters/one, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
`)
	write("clusters/one/vars.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: vars, namespace: flux-system}\ndata: {DOMAIN: example.com}\n")
	for i := range n {
		substitute := ""
		if i%2 == 0 {
			substitute = "  postBuild: {substituteFrom: [{kind: ConfigMap, name: vars}]}\n"
		}
		write(fmt.Sprintf("clusters/one/app-%d.yaml", i), fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: app-%d, namespace: flux-system}
spec:
  interval: 10m
  path: ./apps/app-%d
  prune: true
  targetNamespace: app-%d
  sourceRef: {kind: GitRepository, name: flux-system}
%s`, i, i, i, substitute))
		dir := fmt.Sprintf("apps/app-%d/", i)
		write(dir+"kustomization.yaml", `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [release.yaml, objects.yaml]
configMapGenerator:
  - name: settings
    literals: [a=b]
patches:
  - target: {kind: Deployment}
    patch: |
      - op: add
        path: /spec/revisionHistoryLimit
        value: 3
`)
		write(dir+"release.yaml", `apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: app}
spec:
  interval: 1h
  chart: {spec: {chart: app, version: 1.2.3, sourceRef: {kind: HelmRepository, name: charts, namespace: flux-system}}}
  values:
    ingress: {host: "app.${DOMAIN}"}
    resources: {limits: {cpu: 100m, memory: 128Mi}}
`)
		var b strings.Builder
		for j := range 8 {
			fmt.Fprintf(&b, `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d-%d, labels: {app: d}}
spec:
  replicas: 1
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec:
      containers:
        - name: main
          image: example.com/app:1.0.%d
          env:
            - {name: A, value: "1"}
            - {name: B, value: "2"}
          ports: [{containerPort: 8080}]
`, j, j)
		}
		write(dir+"objects.yaml", b.String())
	}
	return root
}

// cpu returns the CPU time that the process has used, in milliseconds: a machine's other work does not change it much.
func cpu(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
}

func BenchmarkBuild_Repository(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("kustomizations=%d", n), func(b *testing.B) {
			root := generateRepository(b, n)
			start := cpu(b)
			for b.Loop() {
				res, err := Build(b.Context(), Options{Root: root})
				if err != nil {
					b.Fatal(err)
				}
				if got := len(res.Clusters[0].Kustomizations); got != n+1 {
					b.Fatalf("%d Kustomizations", got)
				}
			}
			b.ReportMetric((cpu(b)-start)/float64(b.N)/float64(n+1), "cpu-ms/kustomization")
		})
	}
}

// BenchmarkBuild_Replay compares the cost of a real tree with that of Flux's own library for its Kustomizations, one
// after the other: "build" is the same work, "tree" is all of it, with listing the tree, parsing every file, origins
// and unapplied objects.
func BenchmarkBuild_Replay(b *testing.B) {
	repo, _ := replay(b)
	git(b, repo, "checkout", "-q", "t-28185b2")
	res, err := Build(b.Context(), Options{Root: repo})
	if err != nil {
		b.Fatal(err)
	}
	ks := res.Clusters[0].Kustomizations
	per := func(b *testing.B, start float64) {
		b.ReportMetric((cpu(b)-start)/float64(b.N)/float64(len(ks)), "cpu-ms/kustomization")
	}
	b.Run("build", func(b *testing.B) {
		start := cpu(b)
		for b.Loop() {
			for _, k := range ks {
				if k.State != Built {
					continue
				}
				out, err := build.NewBuilder(false).Build(k.artifact, k.Path, &k.Spec)
				if err != nil || out.Unknown {
					b.Fatal(err, out)
				}
			}
		}
		per(b, start)
	})
	b.Run("tree", func(b *testing.B) {
		start := cpu(b)
		for b.Loop() {
			if _, err := Build(b.Context(), Options{Root: repo, Workers: 1}); err != nil {
				b.Fatal(err)
			}
		}
		per(b, start)
	})
	b.Run("flux", func(b *testing.B) {
		start := cpu(b)
		for b.Loop() {
			for _, k := range ks {
				if k.State == Built {
					if _, err := fluxBuild(context.WithoutCancel(b.Context()), repo, k, nil); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		per(b, start)
	})
}
