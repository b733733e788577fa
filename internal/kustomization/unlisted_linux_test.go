package kustomization_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/validators"
)

// nobody is the user that directories are listed as: root may list all.
const nobody = 65534

// Nothing is known about a directory that cannot be listed.
func TestBuild_UnlistedDirectory(t *testing.T) {
	const entry = `{apiVersion: source.toolkit.fluxcd.io/v1, kind: GitRepository, metadata: {name: flux-system, namespace: flux-system}, spec: {url: https://git.example.com/x}}
---
{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: flux-system, namespace: flux-system}, spec: {path: clusters, sourceRef: {kind: GitRepository, name: flux-system}}}
`
	const settings = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: flux-system}}\n"
	web := func(path string) string {
		return "{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: web, namespace: flux-system}, spec: {path: " + path +
			", sourceRef: {kind: GitRepository, name: flux-system}}}\n"
	}
	for name, tc := range map[string]struct {
		path, problem string
	}{
		"below the directory that is built": {"apps", ""},
		"the directory that is built":       {"apps/hidden", "the path apps/hidden was not built: apps/hidden cannot be listed: permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, d := range []string{dir, filepath.Dir(dir)} {
				if err := os.Chmod(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for file, text := range map[string]string{
				"clusters/flux-system/gotk-sync.yaml": entry, "clusters/web.yaml": web(tc.path), "apps/a.yaml": settings, "apps/hidden/b.yaml": settings,
			} {
				file = filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			hidden := filepath.Join(dir, "apps/hidden")
			if err := os.Chmod(hidden, 0); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(hidden, 0o755) })
			if os.Geteuid() == 0 {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				if err := syscall.Setfsuid(nobody); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = syscall.Setfsuid(0) }()
			}
			res, err := kustomization.Build(t.Context(), kustomization.Options{Root: dir})
			if err != nil {
				t.Fatal(err)
			}
			const want = "the directory apps/hidden cannot be listed: permission denied"
			if !slices.ContainsFunc(res.Problems, func(p *validators.Problem) bool { return p.String() == want }) {
				t.Errorf("problems %v, want %q", res.Problems, want)
			}
			c := res.Clusters[0]
			if c.Complete {
				t.Error("the cluster is complete")
			}
			i := slices.IndexFunc(c.Kustomizations, func(k *kustomization.Kustomization) bool { return k.Key.Name == "web" })
			problems := c.Kustomizations[i].Problems
			if tc.problem == "" && len(problems) > 0 || tc.problem != "" && (len(problems) != 1 || problems[0].Message != tc.problem) {
				t.Errorf("problems of the Kustomization %v, want %q", problems, tc.problem)
			}
		})
	}
}
