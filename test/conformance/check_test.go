package conformance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// A case is written as a Git tree, with the objects that it looks up beside the object itself, and checked. The line and column of each finding must be where
// the case expects it.
func TestSuiteAndCheckFindTheSame(t *testing.T) {
	compared := 0
	for _, rule := range allvalidators.Rules() {
		for _, c := range cases(t, rule) {
			if reason := notATree(c); reason != "" {
				t.Logf("%s/%s: %s", rule.Name, c.Name, reason)
				continue
			}
			compared++
			t.Run(rule.Name+"/"+c.Name, func(t *testing.T) {
				found := c.Suite(t, rule).Evaluate(t.Context(), c.Request, c.Lookup(t, resolver))
				want := make([]string, 0, len(found.Findings))
				for _, f := range found.Findings {
					want = append(want, f.Path.String()+": "+f.Message)
				}
				slices.Sort(want)
				var got, lines, wantLines []string
				for _, f := range checked(t, c, rule) {
					got = append(got, f.Path+": "+strings.ReplaceAll(f.Message, "entry/", ""))
					lines = append(lines, fmt.Sprint(f.Line))
				}
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("check finds\n%s\nthe suite\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				for _, w := range c.Want {
					wantLines = append(wantLines, fmt.Sprint(w.Line))
				}
				slices.Sort(lines)
				slices.Sort(wantLines)
				if !slices.Equal(lines, wantLines) {
					t.Errorf("check finds them in lines %v, the case has them in %v", lines, wantLines)
				}
			})
		}
	}
	if compared < 100 {
		t.Errorf("only %d cases were compared", compared)
	}
}

// notATree says why a case cannot be written as a Git tree; empty when it can.
func notATree(c *ruletest.Case) string {
	switch {
	case c.Request.Old != nil:
		return "a tree has no stored object"
	case c.Request.Admission:
		return "it is about admission"
	case len(c.Hidden) > 0:
		return "in a tree everything can be read"
	case c.Builds != nil || c.Request.Provenance != nil:
		return "it says what a tree builds; see the trees of internal/check"
	case c.Request.Object.GroupVersionKind() == validators.FileKind:
		return "it stands for a file; see the trees of internal/check"
	}
	return ""
}

// checked writes the case as a tree, checks it and returns the rule's findings on the case's object.
func checked(t *testing.T, c *ruletest.Case, rule *validators.Rule) []report.Finding {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, data []byte) {
		t.Helper()
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sources := map[string]string{}
	object := func(name string, o *unstructured.Unstructured, source []byte) {
		if source == nil {
			var err error
			if source, err = yaml.Marshal(o.Object); err != nil {
				t.Fatal(err)
			}
		}
		put("entry/"+name, source)
		if o.GroupVersionKind().Group != "kustomize.toolkit.fluxcd.io" {
			return
		}
		// What a Kustomization builds has to be there, or nothing in the tree is certain.
		if at, _, _ := unstructured.NestedString(o.Object, "spec", "path"); at != "" {
			put(path.Join(path.Clean("/"+at), "placeholder.yaml"), fmt.Appendf(nil, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: placeholder-%s, namespace: %s}\n", o.GetName(), o.GetNamespace()))
		}
		if from, _, _ := unstructured.NestedString(o.Object, "spec", "sourceRef", "name"); from != "" {
			sources[from] = dir
		}
	}
	object("object.yaml", c.Request.Object, c.Source)
	for i, o := range c.Objects {
		object(fmt.Sprintf("other-%d.yaml", i), o, nil)
	}
	for _, o := range c.CRDs {
		object(o.GetName()+".yaml", o, nil)
	}
	rendered, err := kustomization.Tree(t.Context(), kustomization.Options{Root: dir, EntryPoints: []string{"entry"}, Sources: sources})
	if err != nil {
		t.Fatal(err)
	}
	result, err := check.Run(t.Context(), rendered, check.Options{Policy: compile(t, c, rule), Charts: resolver(t, c.WriteCharts(t)), CRDs: []check.Definition{{Origin: "gadgets.yaml", Object: gadgets()}}})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := report.Write(&text, report.JSON, result, report.Options{}); err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(text.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(r.Findings, func(f report.Finding) bool {
		o := c.Request.Object
		return f.ID != rule.ID || f.Object != (report.Object{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()})
	})
}

// gadgets is a definition that the user gives: without any, check takes the definitions for somebody else's.
func gadgets() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "gadgets.example.org"},
		"spec": map[string]any{
			"group": "example.org", "scope": "Namespaced", "names": map[string]any{"kind": "Gadget", "plural": "gadgets"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
			}},
		},
	}}
}
