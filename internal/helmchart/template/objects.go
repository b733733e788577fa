package template

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	release "helm.sh/helm/v4/pkg/release/v1"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// Objects parses the objects of one file that a template produced, as Helm does. Hooks are among them, except tests.
func Objects(file, text string) ([]validators.TemplatedObject, *validators.TemplateFailure) {
	documents := releaseutil.SplitManifests(text)
	names := slices.Collect(maps.Keys(documents))
	sort.Sort(releaseutil.BySplitManifestsOrder(names))
	var out []validators.TemplatedObject
	from := 0
	for _, n := range names {
		document := documents[n]
		line := 1
		if i := strings.Index(text[from:], document); i >= 0 {
			line += strings.Count(text[:from+i], "\n")
			from += i + len(document)
		}
		object, message := parseObject(document, line)
		if message != "" {
			return nil, &validators.TemplateFailure{Template: file, Message: message}
		}
		if object == nil || !createdAtInstall(object) {
			continue
		}
		if items, _ := object.Object["items"].([]any); object.GetAPIVersion() == "v1" && strings.HasSuffix(object.GetKind(), "List") {
			for _, item := range items {
				if m, ok := item.(map[string]any); ok {
					out = append(out, validators.TemplatedObject{Object: &unstructured.Unstructured{Object: m}, Template: file, Line: line})
				}
			}
			continue
		}
		out = append(out, validators.TemplatedObject{Object: object, Template: file, Line: line})
	}
	return out, nil
}

// parseObject parses one document, which begins at a line of the output; nil for one with comments only. The message
// describes an error.
func parseObject(document string, line int) (o *unstructured.Unstructured, message string) {
	if err := archive.CheckYAML([]byte(document)); err != nil {
		return nil, "its output cannot be parsed: " + shortYAMLError(err, line)
	}
	var root any
	if err := yaml.Unmarshal([]byte(document), &root, useNumber); err != nil {
		return nil, "its output is not YAML: " + shortYAMLError(err, line)
	}
	if root == nil {
		return nil, ""
	}
	m, ok := root.(map[string]any)
	if !ok {
		return nil, "its output is not an object"
	}
	o = &unstructured.Unstructured{Object: normalizeNumbers(m).(map[string]any)}
	switch {
	case o.GetKind() == "":
		return nil, "its output has an object without a kind"
	case o.GetAPIVersion() == "":
		return nil, "its output has a " + o.GetKind() + " without an apiVersion"
	}
	return o, ""
}

// useNumber decodes numbers as json.Number, so that normalizeNumbers can tell integers from floats.
func useNumber(d *json.Decoder) *json.Decoder {
	d.UseNumber()
	return d
}

// normalizeNumbers turns numbers into int64 and float64, as in objects of the API server.
func normalizeNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case map[string]any:
		for k, c := range v {
			v[k] = normalizeNumbers(c)
		}
	case []any:
		for i, c := range v {
			v[i] = normalizeNumbers(c)
		}
	}
	return v
}

// createdAtInstall reports whether Helm creates an object at some time other than a test: it is no hook, or one of the
// hooks that Helm knows and that is not only a test.
func createdAtInstall(o *unstructured.Unstructured) bool {
	hooks, ok := o.GetAnnotations()[release.HookAnnotation]
	if !ok {
		return true
	}
	for h := range strings.SplitSeq(hooks, ",") {
		switch release.HookEvent(strings.ToLower(strings.TrimSpace(h))) {
		case release.HookPreInstall, release.HookPostInstall, release.HookPreUpgrade, release.HookPostUpgrade,
			release.HookPreDelete, release.HookPostDelete, release.HookPreRollback, release.HookPostRollback:
			return true
		case release.HookTest, "test-success":
		}
	}
	return false
}

// yamlLine is the line number in an error of a YAML library.
var yamlLine = regexp.MustCompile(`\bline (\d+):`)

// shortYAMLError returns the text of a YAML library's error in one line, with line numbers of the whole output: the
// document begins at the line first.
func shortYAMLError(err error, first int) string {
	text := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "it is not YAML: ", "yaml: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	text = yamlLine.ReplaceAllStringFunc(text, func(s string) string {
		n, err := strconv.Atoi(s[len("line ") : len(s)-1])
		if err != nil {
			return s
		}
		return fmt.Sprintf("line %d of the output:", n+first-1)
	})
	return strings.Join(strings.Fields(text), " ")
}
