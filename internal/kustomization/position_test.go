package kustomization

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/flux-admission/flux-admission/validators"
)

// at formats a location: where the value is written last, then the related locations.
func at(l FieldLocation) string {
	out := []string{fmt.Sprintf("%s %s", l.Role, l.Position)}
	for _, o := range l.Related {
		out = append(out, fmt.Sprintf("%s %s", o.Role, o.Position))
	}
	return strings.Join(out, "; ")
}

// parsePath reads the notation of Path.String for keys without dots; [key] is a key with dots.
func parsePath(text string) validators.Path {
	var p validators.Path
	for text != "" {
		var step string
		if rest, ok := strings.CutPrefix(text, "["); ok {
			step, text, _ = strings.Cut(rest, "]")
			var i int
			if _, err := fmt.Sscanf(step, "%d", &i); err == nil {
				p = p.Index(i)
			} else {
				p = p.Child(step)
			}
			text = strings.TrimPrefix(text, ".")
			continue
		}
		end := strings.IndexAny(text, ".[")
		if end < 0 {
			return p.Child(text)
		}
		p = p.Child(text[:end])
		text = strings.TrimPrefix(text[end:], ".")
	}
	return p
}

func TestObject_Locate(t *testing.T) {
	for name, cases := range map[string][]struct{ object, path, want string }{
		"bootstrap": {
			{"Deployment shop/a-web-z", "", "field apps/base/deployment.yaml:2:1"},
			{"Deployment shop/a-web-z", "metadata.namespace", "targetNamespace clusters/one/apps.yaml:15:3; field apps/base/deployment.yaml:4:1"},
			{"Deployment shop/a-web-z", "metadata.name", "name clusters/one/apps.yaml:16:3; name clusters/one/apps.yaml:17:3; field apps/base/deployment.yaml:5:3"},
			{"Deployment shop/a-web-z", "metadata.labels.team", "metadata clusters/one/apps.yaml:20:7; field apps/base/deployment.yaml:6:3"},
			{"Deployment shop/a-web-z", "metadata.annotations.from", "metadata apps/base/kustomization.yaml:7:3; field apps/base/deployment.yaml:4:1"},
			{"Deployment shop/a-web-z", "spec.replicas", "replicas apps/components/replicas/kustomization.yaml:3:1; field apps/base/deployment.yaml:8:1"},
			{"Deployment shop/a-web-z", "spec.template.spec.priorityClassName", "patch apps/production/patch.yaml:8:7; field apps/base/deployment.yaml:16:5"},
			{"Deployment shop/a-web-z", "spec.template.spec.containers[0].image", "image clusters/one/apps.yaml:28:7; image apps/production/kustomization.yaml:7:1; field apps/base/deployment.yaml:19:11"},
			{"Deployment shop/a-web-z", "spec.template.spec.containers[0].args[0]", "field apps/base/deployment.yaml:20:18; variable infrastructure/settings.yaml:7:3"},
			{"Deployment shop/a-web-z", "spec.template.spec.containers[0].args[1]", "field apps/base/deployment.yaml:20:40; variable clusters/one/apps.yaml:55:7"},
			{"Deployment shop/a-web-z", "spec.template.spec.containers[0].env[0].value", "patch clusters/one/apps.yaml:46:23; field apps/base/deployment.yaml:18:11"},
			{"Deployment shop/a-web-z", "spec.template.spec.containers[0].envFrom[0].configMapRef.name", "name clusters/one/apps.yaml:16:3; name clusters/one/apps.yaml:17:3; field apps/base/deployment.yaml:23:17"},
			{"Deployment shop/a-web-z", "spec.template.spec.containers[0].resources.limits.memory", "field apps/base/deployment.yaml:25:30"},
			{"Deployment shop/a-web-z", "spec.template.metadata.labels.size", "field apps/base/deployment.yaml:15:9; variable clusters/one/apps.yaml:56:7"},
			{"Deployment shop/a-web-z", "spec.template.metadata.labels.tier", "field apps/base/deployment.yaml:7:5"},
			{"Deployment shop/a-web-z", "spec.nowhere.atAll", "field apps/base/deployment.yaml:8:1"},
			{"ConfigMap shop/a-hashed-z-4h2mbtbbt6", "data.a", "data apps/base/kustomization.yaml:10:16; generator apps/base/kustomization.yaml:9:5"},
			{"ConfigMap shop/generated", "data[page.html]", "data infrastructure/sub/files/page.html:1:1; generator infrastructure/sub/kustomization.yaml:5:5"},
			{"ConfigMap shop/generated", "data.greeting", "data infrastructure/sub/kustomization.yaml:8:9; generator infrastructure/sub/kustomization.yaml:5:5"},
			{"ConfigMap shop/generated", "metadata.namespace", "generator infrastructure/sub/kustomization.yaml:5:5"},
			{"Secret shop/plain", "data.USER", "data infrastructure/sub/files/some.env:2:1; generator infrastructure/sub/kustomization.yaml:12:5"},
			{"ServiceAccount shop/second", "metadata.name", "field infrastructure/sub/list.yaml:9:16"},
			{"Kustomization flux-system/flux-system", "spec.postBuild.substituteStrategy", "patch clusters/one/flux-system/kustomization.yaml:12:11; field clusters/one/flux-system/gotk-sync.yaml:17:1"},
			{"Kustomization flux-system/apps", "spec.path", "field clusters/one/apps.yaml:10:3"},
		},
		"two-clusters": {
			{"ConfigMap default/colour", "data.colour", "field shared/config.yaml:5:3; variable clusters/blue/shared.yaml:9:28"},
			{"GitRepository flux-system/flux-system", "spec.url", "entry-point clusters/blue/flux/instance.yaml:1:1"},
		},
	} {
		a, err := txtar.ParseFile(filepath.Join("testdata/trees", name+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		root, _ := unpack(t, a)
		res, err := Build(t.Context(), Options{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range cases {
			t.Run(tc.object+" "+tc.path, func(t *testing.T) {
				for _, o := range res.Clusters[0].Objects {
					if o.String() != tc.object {
						continue
					}
					if diff := cmp.Diff(tc.want, at(o.Locate(parsePath(tc.path)))); diff != "" {
						t.Errorf("location (-want +got):\n%s", diff)
					}
					return
				}
				t.Fatal("no such object")
			})
		}
	}
}
