package entrypoint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/kustomization/entrypoint"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
)

const (
	instance = `apiVersion: fluxcd.controlplane.io/v1
kind: FluxInstance
metadata: {name: flux, namespace: flux-system}
spec: {sync: {kind: OCIRepository, url: oci://example.com/fleet, path: clusters/prod}}
`
	sync = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: fleet, namespace: flux-system}
spec: {url: https://example.com/fleet.git, ignore: /docs}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: fleet, namespace: flux-system}
spec: {path: ./clusters/prod, sourceRef: {kind: GitRepository, name: fleet}}
`
	values = "instance: {sync: {name: fleet, path: clusters/prod}}\n"
)

func tree(t *testing.T, files map[string]string) *sourcetree.Tree {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := sourcetree.Open(t.Context(), root, "", sourcetree.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Errorf("closing the tree: %v", err)
		}
	})
	return tree
}

func TestFind(t *testing.T) {
	const manifest = "clusters/prod/a.yaml"
	for name, tc := range map[string]struct {
		files map[string]string
		given []string
		want  []string
	}{
		"a FluxInstance": {
			files: map[string]string{"flux/instance.yaml": instance, manifest: ""},
			want:  []string{"FluxInstance flux/instance.yaml:1:1 clusters/prod flux-system/flux-system OCIRepository flux-system/flux-system, 3 objects"},
		},
		"a gotk-sync.yaml": {
			files: map[string]string{"clusters/prod/flux-system/gotk-sync.yaml": sync, manifest: ""},
			want:  []string{"gotk-sync.yaml clusters/prod/flux-system/gotk-sync.yaml:6:1 clusters/prod flux-system/fleet GitRepository flux-system/fleet, 2 objects"},
		},
		"the values of the flux-instance chart": {
			files: map[string]string{"values.yaml": values, manifest: ""},
			want:  []string{"flux-instance chart values.yaml:1:1 clusters/prod flux-system/fleet GitRepository flux-system/fleet, 3 objects"},
		},
		"values of the chart do not count beside a gotk-sync.yaml": {
			files: map[string]string{"clusters/prod/flux-system/gotk-sync.yaml": sync, "values.yaml": values, manifest: ""},
			want:  []string{"gotk-sync.yaml clusters/prod/flux-system/gotk-sync.yaml:6:1 clusters/prod flux-system/fleet GitRepository flux-system/fleet, 2 objects"},
		},
		"a directory that was given, which a file syncs": {
			files: map[string]string{"flux/instance.yaml": instance, manifest: ""}, given: []string{"./clusters/prod/"},
			want: []string{"FluxInstance flux/instance.yaml:1:1 clusters/prod flux-system/flux-system OCIRepository flux-system/flux-system, 3 objects"},
		},
		"a directory that was given, which no file syncs": {
			files: map[string]string{manifest: ""}, given: []string{"clusters/prod"},
			want: []string{"directory  clusters/prod flux-system/flux-system GitRepository flux-system/flux-system, 2 objects"},
		},
		"a path that does not exist is a problem": {
			files: map[string]string{"flux/instance.yaml": instance, "clusters/prd/a.yaml": ""},
			want:  []string{"flux/instance.yaml:1:1: the FluxInstance syncs the path clusters/prod, but clusters/prod is not in the tree; suggestion clusters/prd"},
		},
		"a tree without Flux": {files: map[string]string{manifest: "kind: ConfigMap\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			entries, problems, err := entrypoint.Find(tree(t, tc.files), "", tc.given)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				got = append(got, fmt.Sprintf("%s %s %s %s %s %s/%s, %d objects", e.Kind, e.Position, e.Path, e.Key, e.Source.Kind, e.Source.Namespace, e.Source.Name, len(e.Objects)))
			}
			for _, p := range problems {
				got = append(got, fmt.Sprintf("%s; suggestion %s", p, p.Suggestion))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("entry points and problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFind_MissingDirectory(t *testing.T) {
	_, _, err := entrypoint.Find(tree(t, map[string]string{"clusters/prod/a.yaml": ""}), "", []string{"cluster/prod"})
	if want := "entry point cluster/prod: cluster/prod is not in the tree; did you mean clusters/prod?"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
