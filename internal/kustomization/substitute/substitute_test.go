package substitute

import (
	"strings"
	"testing"
)

// FuzzSubstitute: for any text of a value, substitution ends without a panic and leaves no mark in the object.
func FuzzSubstitute(f *testing.F) {
	for _, seed := range []string{"${A}", "${A:-b}", "${U}", "$${A}", "${A//x/${B}}", "${#A}", "${A:1:2}", "${A^^}", "a: ${A}\n", "${", "${A", "${A:?}", "${B}${U,,}"} {
		f.Add(seed, "value: [x]")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if strings.ContainsAny(text+value, markOpen+markClose) {
			return
		}
		v := &Variables{known: map[string]Variable{"A": {Value: value}, "B": {Unresolved: true}}, missing: true}
		result, err := v.Substitute(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"a": text}})
		if anyString(result.Object, func(x string) bool { return strings.Contains(x, markOpen) }) {
			t.Errorf("the object holds a mark: %v", result.Object)
		}
		if err != nil && len(value) > 8 && strings.Contains(err.Error(), value) {
			t.Errorf("the error quotes the value: %v", err)
		}
	})
}
