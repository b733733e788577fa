package kindschema

import (
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/flux-admission/flux-admission/validators"
)

// pathIn parses a field path as the API server's libraries print it: spec.list[0].key, spec.map[a.b], spec.a.b for the key "a.b". The object
// decides where a key with a dot or a bracket ends. Keys that the object does not have are read literally.
func pathIn(root any, text string) validators.Path {
	if text == (*field.Path)(nil).String() {
		return nil // the object itself
	}
	var path validators.Path
	for text = strings.TrimPrefix(text, "."); text != ""; text = strings.TrimPrefix(text, ".") {
		step, rest := nextStep(root, text)
		path = append(path, step)
		root, text = validators.Path{step}.Lookup(root), rest
	}
	return path
}

func nextStep(at any, text string) (validators.Step, string) {
	if list, ok := at.([]any); ok {
		if i, rest, ok := listIndex(text); ok && i < len(list) {
			return validators.Step{Index: i}, rest
		}
		if key := keyed.FindString(text); key != "" {
			for i, item := range list {
				if hasKey(item, key) {
					return validators.Step{Index: i}, text[len(key):]
				}
			}
		}
	}
	if m, ok := at.(map[string]any); ok {
		best, rest := "", ""
		for k := range m {
			if len(k) <= len(best) {
				continue
			}
			if after, ok := strings.CutPrefix(text, k); ok && (after == "" || after[0] == '.' || after[0] == '[') {
				best, rest = k, after
			} else if after, ok := strings.CutPrefix(text, "["+k+"]"); ok {
				best, rest = k, after
			}
		}
		if best != "" {
			return validators.Step{Key: best, Index: -1}, rest
		}
	}
	if inner, rest, ok := strings.Cut(text, "]"); ok && strings.HasPrefix(inner, "[") {
		return validators.Step{Key: inner[1:], Index: -1}, rest
	}
	end := strings.IndexAny(text[1:], ".[") + 1
	if end == 0 {
		end = len(text)
	}
	return validators.Step{Key: text[:end], Index: -1}, text[end:]
}

// keyed matches a list entry selected by its key, as structured-merge-diff prints it: [containerPort=80,protocol="TCP"].
var keyed = regexp.MustCompile(`^\[(?:\w*=(?:"(?:[^"\\]|\\.)*"|[^,\]"]+),?)+\]`)

// listIndex parses [3] or 3 at the start of the text.
func listIndex(text string) (int, string, bool) {
	var digits, rest string
	if after, ok := strings.CutPrefix(text, "["); ok {
		if digits, rest, ok = strings.Cut(after, "]"); !ok {
			return 0, "", false
		}
	} else {
		end := strings.IndexAny(text, ".[")
		if end < 0 {
			end = len(text)
		}
		digits, rest = text[:end], text[end:]
	}
	i, err := strconv.Atoi(digits)
	return i, rest, err == nil && i >= 0
}
