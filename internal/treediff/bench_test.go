package treediff_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/treediff"
)

// BenchmarkCompare builds a tree of n Kustomizations and one with a changed file, and compares them. It reports the
// seconds for building one of them, which is what build takes, and for the whole diff.
func BenchmarkCompare(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var dirs []string
			for _, image := range []string{"web:1", "web:2"} {
				dirs = append(dirs, b.TempDir())
				writeMany(b, dirs[len(dirs)-1], n, image)
			}
			var building, all time.Duration
			for b.Loop() {
				began := time.Now()
				var trees []*check.Tree
				for _, dir := range dirs {
					t, err := check.Load(b.Context(), check.Input{Path: dir})
					if err != nil {
						b.Fatal(err)
					}
					trees = append(trees, t)
				}
				building += time.Since(began) / time.Duration(len(dirs))
				d, err := treediff.Compare(b.Context(), trees[0], trees[1], treediff.Options{})
				if err != nil || len(d.Objects) != 1 {
					b.Fatalf("%d objects: %v", len(d.Objects), err)
				}
				for _, t := range trees {
					t.Close()
				}
				all += time.Since(began)
			}
			b.ReportMetric(building.Seconds()/float64(b.N), "s/build")
			b.ReportMetric(all.Seconds()/float64(b.N), "s/diff")
		})
	}
}

// writeMany writes a tree of n Kustomizations with five objects each; the first one has the image.
func writeMany(b *testing.B, dir string, n int, image string) {
	b.Helper()
	files := map[string]string{"clusters/home/flux-system/gotk-sync.yaml": sync}
	for i := range n {
		name := fmt.Sprintf("app-%d", i)
		files["clusters/home/"+name+".yaml"] = ks(name, pruned)
		one := image
		if i > 0 {
			one = "web:1"
		}
		for file, text := range map[string]string{"web": strings.Replace(web, "web:1", one, 1), "claim": claim, "pg": pg, "release": release} {
			files[name+"/"+file+".yaml"] = strings.Replace(text, "namespace: apps", "namespace: "+name, 1)
		}
		files[name+"/namespace.yaml"] = "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + "}\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
}
