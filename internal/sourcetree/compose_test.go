package sourcetree_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
)

// TestCompose composes the artifacts under testdata/compose. What is wanted of each is what source-watcher 2.2.1 made of the same input: the files of
// the archive that its builder (internal/builder, ArtifactBuilder.Build) stored, or "error" where it returned one. Its module is not served by the
// module proxy, so the results were written by a program within a clone of it. A directory NAME.d in a case is the content of the archive NAME.
func TestCompose(t *testing.T) {
	archives, err := filepath.Glob("testdata/compose/*.txtar")
	if err != nil || len(archives) < 30 {
		t.Fatalf("%d cases, error %v", len(archives), err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var operations []sourcetree.CopyOperation
			root, want, packed := t.TempDir(), "", map[string][]txtar.File{}
			for _, f := range a.Files {
				archive, entry, inArchive := strings.Cut(f.Name, ".d/")
				switch {
				case f.Name == "copy.yaml":
					if err := yaml.Unmarshal(f.Data, &operations); err != nil {
						t.Fatal(err)
					}
				case f.Name == "want":
					want = string(f.Data)
				case inArchive:
					packed[archive] = append(packed[archive], txtar.File{Name: entry, Data: f.Data})
				default:
					write(t, root, f.Name, f.Data)
				}
			}
			for archive, files := range packed {
				write(t, root, archive, pack(t, files))
			}
			sources := map[string]*sourcetree.Artifact{"repo": artifact(t, filepath.Join(root, "repo")), "over": artifact(t, filepath.Join(root, "over"))}
			made, err := sourcetree.Compose(sources, operations)
			got := "error\n"
			if err == nil {
				got = content(t, made)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("artifact (-source-watcher +Compose), error %v:\n%s", err, diff)
			}
		})
	}
}

func artifact(t *testing.T, dir string) *sourcetree.Artifact {
	t.Helper()
	tree, err := sourcetree.Open(t.Context(), dir, "", sourcetree.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return tree.View("/none", "", "") // the default patterns ignore archives of a GitRepository
}

// content lists the files of an artifact with their text.
func content(t *testing.T, a *sourcetree.Artifact) string {
	t.Helper()
	var out strings.Builder
	for _, p := range a.Paths() {
		data, err := a.File(p).Read()
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		if strings.HasPrefix(text, "\x1f\x8b") {
			text = "archive"
		}
		fmt.Fprintf(&out, "%s %q\n", p, text)
	}
	return out.String()
}

func write(t *testing.T, root, name string, data []byte) {
	t.Helper()
	p := filepath.Join(root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func pack(t *testing.T, files []txtar.File) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.Name, Mode: 0o644, Size: int64(len(f.Data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestCompose_HostileArchives has archives that source-watcher refuses, and one that is too large to be read here.
func TestCompose_HostileArchives(t *testing.T) {
	for name, tc := range map[string]struct {
		header tar.Header
		want   string
	}{
		"name that leaves the directory": {tar.Header{Name: "../x", Typeflag: tar.TypeReg}, "invalid name"},
		"absolute name":                  {tar.Header{Name: "/x", Typeflag: tar.TypeReg}, "invalid name"},
		"link":                           {tar.Header{Name: "x", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink}, "not a regular file"},
		"too large":                      {tar.Header{Name: "x", Size: 40 << 20, Typeflag: tar.TypeReg}, "too large to be read"},
	} {
		t.Run(name, func(t *testing.T) {
			var data bytes.Buffer
			zipped := gzip.NewWriter(&data)
			w := tar.NewWriter(zipped)
			tc.header.Mode = 0o644
			if err := w.WriteHeader(&tc.header); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(make([]byte, tc.header.Size)); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := zipped.Close(); err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			write(t, root, "a.tgz", data.Bytes())
			_, err := sourcetree.Compose(map[string]*sourcetree.Artifact{"repo": artifact(t, root)}, []sourcetree.CopyOperation{
				{From: "@repo/a.tgz", To: "@artifact/", Strategy: sourcetree.StrategyExtract},
			})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
