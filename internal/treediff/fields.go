package treediff

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	corev1 "k8s.io/api/core/v1"

	"github.com/flux-admission/flux-admission/internal/manifest"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
)

// listKeys are fields that identify the items of a list, as the patch merge keys of the Kubernetes API do: an item is
// compared with the one of the same key, wherever it is.
var listKeys = []string{"name", "key", "mountPath"}

// byKey begins a step of a path to an item that its key identifies.
const byKey = "\x00"

// pathText returns a path for people: spec.containers[name=web].image.
func pathText(at validators.Path) string {
	var b strings.Builder
	for i, step := range at {
		id, isItem := strings.CutPrefix(step.Key, byKey)
		text := validators.Path{step}.String()
		if isItem {
			text = "[" + id + "]"
		}
		if i > 0 && !strings.HasPrefix(text, "[") {
			b.WriteByte('.')
		}
		b.WriteString(text)
	}
	return b.String()
}

// maxHunkLines bounds the lines of a text that are compared.
const maxHunkLines = 5000

// Fields returns the fields that differ between two objects. Values of Secrets, and those that SOPS encrypted, are
// compared and not shown.
func Fields(before, after map[string]any, secret bool) []report.FieldChange {
	f := &fields{secret: secret}
	f.maps(nil, before, after)
	return f.changes
}

type fields struct {
	secret  bool
	changes []report.FieldChange
}

func (f *fields) value(at validators.Path, before, after any) {
	if equal(before, after) {
		return
	}
	if a, ok := before.(map[string]any); ok {
		if b, ok := after.(map[string]any); ok {
			f.maps(at, a, b)
			return
		}
	}
	if a, ok := before.([]any); ok {
		if b, ok := after.([]any); ok {
			f.lists(at, a, b)
			return
		}
	}
	f.add(at, report.Changed, before, after)
}

func (f *fields) maps(at validators.Path, before, after map[string]any) {
	keys := map[string]bool{}
	for key := range before {
		keys[key] = true
	}
	for key := range after {
		keys[key] = true
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		a, was := before[key]
		b, is := after[key]
		switch path := at.Child(key); {
		case !was:
			f.add(path, report.Added, nil, b)
		case !is:
			f.add(path, report.Removed, a, nil)
		default:
			f.value(path, a, b)
		}
	}
}

// lists compares lists whose items have a key by that, and others by position, after what both begin and end with.
func (f *fields) lists(at validators.Path, before, after []any) {
	if key := keyOf(before, after); key != "" {
		f.keyed(at, key, before, after)
		return
	}
	first := 0
	for first < len(before) && first < len(after) && equal(before[first], after[first]) {
		first++
	}
	last := 0
	for last < len(before)-first && last < len(after)-first && equal(before[len(before)-1-last], after[len(after)-1-last]) {
		last++
	}
	n := max(len(before), len(after)) - last
	for i := first; i < n; i++ {
		switch path := at.Index(i); {
		case i >= len(before)-last:
			f.add(path, report.Added, nil, after[i])
		case i >= len(after)-last:
			f.add(path, report.Removed, before[i], nil)
		default:
			f.value(path, before[i], after[i])
		}
	}
}

// keyOf returns a field that identifies the items of both lists; empty for none.
func keyOf(lists ...[]any) string {
	for _, key := range listKeys {
		if !slices.ContainsFunc(lists, func(list []any) bool { return !identifies(key, list) }) {
			return key
		}
	}
	return ""
}

func identifies(key string, list []any) bool {
	seen := map[string]bool{}
	for _, item := range list {
		m, _ := item.(map[string]any)
		id, ok := m[key]
		text := fmt.Sprint(id)
		if !ok || seen[text] {
			return false
		}
		seen[text] = true
	}
	return true
}

func (f *fields) keyed(at validators.Path, key string, before, after []any) {
	index := func(list []any) (map[string]int, []string) {
		byID := map[string]int{}
		var order []string
		for i, item := range list {
			id := fmt.Sprint(item.(map[string]any)[key])
			byID[id] = i
			order = append(order, id)
		}
		return byID, order
	}
	was, orderBefore := index(before)
	is, orderAfter := index(after)
	step := func(id string) validators.Path { return at.Child(byKey + key + "=" + id) }
	for _, id := range orderBefore {
		if _, kept := is[id]; !kept {
			f.add(step(id), report.Removed, before[was[id]], nil)
		}
	}
	for _, id := range orderAfter {
		if i, known := was[id]; known {
			f.value(step(id), before[i], after[is[id]])
		} else {
			f.add(step(id), report.Added, nil, after[is[id]])
		}
	}
	common := func(order []string, other map[string]int) []string {
		return slices.DeleteFunc(slices.Clone(order), func(id string) bool { _, ok := other[id]; return !ok })
	}
	a, b := common(orderBefore, is), common(orderAfter, was)
	if !slices.Equal(a, b) {
		f.add(at, report.Moved, strings.Join(a, ", "), strings.Join(b, ", "))
	}
}

func equal(a, b any) bool {
	// YAML and JSON have the same number in different types.
	switch a.(type) {
	case int64, float64, int:
		switch b.(type) {
		case int64, float64, int:
			return fmt.Sprint(a) == fmt.Sprint(b)
		}
	}
	return reflect.DeepEqual(a, b)
}

func (f *fields) add(at validators.Path, change report.Change, before, after any) {
	c := report.FieldChange{Path: pathText(at), Change: change}
	if f.secret && len(at) > 0 && (at[0].Key == "data" || at[0].Key == "stringData" || at[0].Key == "metadata" && repeats(at, before, after)) {
		c.Masked = true
		f.changes = append(f.changes, c)
		return
	}
	a, aHid := manifest.MaskValue(before)
	b, bHid := manifest.MaskValue(after)
	if aHid || bHid {
		c.Masked = equal(a, b)
	}
	oldText, isText := a.(string)
	newText, areTexts := b.(string)
	if isText && areTexts && (strings.Contains(oldText, "\n") || strings.Contains(newText, "\n")) {
		c.Hunks = hunks(oldText, newText)
	} else {
		c.Before, c.After = a, b
	}
	f.changes = append(f.changes, c)
}

// hunks returns the differing lines of two texts with their surroundings.
func hunks(before, after string) string {
	a, b := difflib.SplitLines(before), difflib.SplitLines(after)
	if len(a) > maxHunkLines || len(b) > maxHunkLines {
		return fmt.Sprintf("%d lines before, %d lines after\n", len(a), len(b))
	}
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: a, B: b, Context: 2})
	if err != nil {
		return fmt.Sprintf("%d lines before, %d lines after\n", len(a), len(b))
	}
	return text
}

// repeats reports whether a field below the metadata is, or has, the annotation with which kubectl repeats the object.
func repeats(at validators.Path, values ...any) bool {
	const annotation = corev1.LastAppliedConfigAnnotation
	return slices.ContainsFunc(at, func(s validators.Step) bool { return s.Key == annotation }) ||
		slices.ContainsFunc(values, func(v any) bool { m, _ := v.(map[string]any); _, ok := m[annotation]; return ok })
}
