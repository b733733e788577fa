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

func TestSubstitute_MissingSource(t *testing.T) {
	v := &Variables{}
	v.Missing()
	result, err := v.Substitute(map[string]any{
		"default": "${a:=1.0.0}", "nested": "${a:=${b:-x}y}", "quoted": "${q:='}a${q:='}", "none": "${a}", "inner": "${a:=${b}}",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"default": "1.0.0", "nested": "xy", "quoted": "a", "none": "${a}", "inner": "${b}"}
	for key, text := range want {
		if result.Object[key] != text {
			t.Errorf("%s is %v, want %v", key, result.Object[key], text)
		}
	}
	if len(result.Unresolved) != 2 {
		t.Errorf("unresolved: %v, want inner and none", result.Unresolved)
	}
}

func TestSubstitute_Failures(t *testing.T) {
	v := &Variables{}
	v.AddInline(map[string]string{"A": "x"})
	result, err := v.Substitute(map[string]any{"a": "${A} ${b[@]} $${c.d}\n${e.f", "list": []any{"${A}", "${g-h"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range result.Failures {
		got = append(got, f.Path.String()+" "+f.Expression)
	}
	if want := "a ${b[@]},a ${e.f,list[1] ${g-h"; strings.Join(got, ",") != want {
		t.Errorf("failures are %q, want %q", got, want)
	}
	if want := "x ${b[@]} ${c.d}\n${e.f"; result.Object["a"] != want {
		t.Errorf("a is %q, want %q", result.Object["a"], want)
	}
}
