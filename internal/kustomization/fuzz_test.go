package kustomization

import (
	"path"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
)

func eachPath(v any, at validators.Path, visit func(validators.Path)) {
	visit(at)
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			eachPath(e, at.Child(k), visit)
		}
	case []any:
		for i, e := range v {
			eachPath(e, at.Index(i), visit)
		}
	}
}

// FuzzBuild: a tree with any files is built without a panic, and every field of every object can be located.
func FuzzBuild(f *testing.F) {
	for _, seed := range []string{
		"-- app/a.yaml --\n" + configMap("a"),
		"-- app/kustomization.yaml --\nresources: [a.yaml, sub]\nnamePrefix: x-\npatches:\n- path: p.yaml\n- target: {kind: ConfigMap}\n  patch: |\n    - {op: add, path: /data/b, value: [c]}\n" +
			"-- app/a.yaml --\n" + configMap("a") + "-- app/p.yaml --\n" + configMap("a") + "data: {x: ${Y}}\n-- app/sub/kustomization.yaml --\nconfigMapGenerator: [{name: g, literals: [a=b]}]\n",
		"-- app/kustomization.yaml --\nresources: [a.yaml]\nreplacements:\n- source: {kind: ConfigMap, fieldPath: data.a}\n  targets: [{select: {kind: ConfigMap}, fieldPaths: [data.b], options: {create: true}}]\n-- app/a.yaml --\n" +
			configMap("a") + "data: {a: ${X:-1}}\n",
		"-- app/kustomization.yaml --\ncomponents: [c]\nlabels: [{pairs: {a: b}}]\n-- app/c/kustomization.yaml --\napiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [../a.txt]\n-- app/a.txt --\n" + configMap("a"),
		"-- flux/more.yaml --\n" + strings.ReplaceAll(fromElsewhere, "%NAME%", "more") + "-- .sourceignore --\n*.yaml\n!/app\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		root := app(t, "  postBuild: {substitute: {Y: z}, substituteFrom: [{kind: ConfigMap, name: a}]}\n")
		for i, file := range txtar.Parse(data).Files {
			name := path.Clean("/" + file.Name)[1:]
			if i > 10 || name == "" || len(name) > 60 || strings.ContainsAny(name, "\x00\\:") || strings.HasPrefix(name, "flux/gotk") || strings.HasPrefix(name, "flux/app.yaml") || strings.Contains(name, ".yaml/") {
				continue
			}
			if !tryWrite(root, name, file.Data) {
				continue
			}
		}
		res, err := Build(t.Context(), Options{Root: root, Limits: sourcetree.Limits{Nodes: 20_000, Objects: 100}})
		if err != nil {
			return
		}
		for _, c := range res.Clusters {
			for _, k := range c.Kustomizations {
				for _, p := range k.Problems {
					// Panics of kustomize are recovered from in package build; a panic here is one of this package.
					if strings.HasPrefix(p.Message, "the build fails: "+build.Recovered+": ") {
						t.Errorf("%s\n%s", p.Message, p.Detail)
					}
				}
			}
			for _, o := range c.Objects {
				eachPath(o.Object, nil, func(p validators.Path) { o.Locate(p) })
			}
		}
	})
}
