package kustomization

import (
	"path"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/flux-admission/flux-admission/validators"
)

// FuzzParseYAML: whatever the bytes are, parsing ends, every place is inside the text, and a file that is refused has no documents.
func FuzzParseYAML(f *testing.F) {
	for _, seed := range []string{
		configMap("a"), "a: 1\na: 2\n", "a: &a [*a]\n", "a: [", "- - - -\n", "\x00", "\xff\xfe", "? {a: b}\n: c\n", "<<: *x\n", "a: &x {b: c}\nd: {<<: *x}\n",
		"---\n---\n...\n%YAML 1.1\n---\na\n", "a: 2024-01-01\nb: .nan\nc: 0o17\nd: !!binary aGk=\n1: x\n",
	} {
		f.Add([]byte(seed))
	}
	limits := Limits{Nodes: 10_000}.withDefaults()
	f.Fuzz(func(t *testing.T, data []byte) {
		d := parseYAML(data, "fuzz.yaml", limits)
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 2
		for _, p := range d.problems {
			if p.Message == "" || p.Position.File != "fuzz.yaml" || p.Position.Line > lines {
				t.Errorf("problem %+v in a text of %d lines", p, lines)
			}
		}
		if d.refused != nil && len(d.docs) > 0 {
			t.Error("a refused file has documents")
		}
		for _, doc := range d.docs {
			identify(doc)
			if m, err := toObject(content(doc)); err == nil {
				eachPath(m, nil, func(p validators.Path) { descend(doc, m, p) })
			}
		}
	})
}

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

// FuzzTree: a tree with any files renders without a panic, and every field of every object can be located.
func FuzzTree(f *testing.F) {
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
		res, err := Tree(t.Context(), Options{Root: root, Limits: Limits{Nodes: 20_000, Objects: 100}})
		if err != nil {
			return
		}
		for _, c := range res.Clusters {
			for _, k := range c.Kustomizations {
				for _, p := range k.Problems {
					// Kustomize's own panics are caught where it is called; one here is ours.
					if strings.HasPrefix(p.Message, "the build fails: "+recovered+": ") {
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

// FuzzSubstitute: whatever the text of a value is, substitution ends without a panic, and no mark of ours is left in the object.
func FuzzSubstitute(f *testing.F) {
	for _, seed := range []string{"${A}", "${A:-b}", "${U}", "$${A}", "${A//x/${B}}", "${#A}", "${A:1:2}", "${A^^}", "a: ${A}\n", "${", "${A", "${A:?}", "${B}${U,,}"} {
		f.Add(seed, "value: [x]")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if strings.ContainsAny(text+value, markOpen+markClose) {
			return
		}
		v := &variables{known: map[string]variable{"A": {value: value}, "B": {unknown: true}}, missing: []validators.ObjectRef{{Kind: "Secret", Name: "s"}}}
		s := v.substitute(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"a": text}}, false)
		if anyString(s.object, func(x string) bool { return strings.Contains(x, markOpen) }) {
			t.Errorf("%v", s.object)
		}
		if s.err != nil && value != "" && len(value) > 8 && strings.Contains(s.err.Error(), value) {
			t.Errorf("the error quotes the value: %v", s.err)
		}
	})
}
