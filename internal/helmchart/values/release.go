// Package values composes the values of a Helm release as Flux and Helm do, with their own libraries: spec.valuesFrom
// and spec.values first, then the chart's defaults and those of its subcharts. Unknown parts are marked, so that a
// schema can validate the rest.
package values

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/chartutil"
	"github.com/go-logr/logr"
	"helm.sh/helm/v4/pkg/chart/common"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// The limits of a release's values; more are an error.
const (
	// maxNested bounds the nesting.
	maxNested = 256
	// maxSources bounds the entries of spec.valuesFrom.
	maxSources = 256
	// maxSourceBytes and maxSourceEntries bound the documents of spec.valuesFrom together, before they are decoded.
	maxSourceBytes   = 8 << 20
	maxSourceEntries = 100_000
	// maxListIndexes bounds the sum of the list indexes of all targetPaths: Helm allocates a list up to its index, of
	// 65,536 at most for each index in a path.
	maxListIndexes = 10_000
)

// Release is a release's own values as Flux hands them to Helm, as far as they are known.
type Release struct {
	// Values are the known values. They may share maps with the inline values: they must not be changed.
	Values map[string]any
	// Open means that a whole document of values is missing: other keys may be set, at the root and in every map.
	Open bool
	// Missing names the parts that are missing, a phrase each.
	Missing []string

	// unknown are the strings in Values, keys included, whose final value is unknown.
	unknown map[string]bool
	sources []source
	budget  budget
}

// budget is what remains of the limits while spec.valuesFrom is read.
type budget struct {
	yaml    archive.YAMLBudget
	indexes int
}

// source is one entry of valuesFrom, read.
type source struct {
	index   int // in validators.Values.From
	ref     validators.ValuesSource
	content string
	known   bool
	// document is the content as a map; nil with a targetPath, and unless known.
	document map[string]any
}

// sentinel is the value of a targetPath that is unknown. No YAML document can contain its first byte.
const sentinel = "\x00unknown"

// FromRelease composes spec.valuesFrom and spec.values. An error means that Flux cannot compose them either, or that
// they exceed the limits; it quotes no value.
func FromRelease(ctx context.Context, v validators.Values) (*Release, error) {
	if len(v.From) > 0 && archive.Depth(v.Inline, maxNested+1) > maxNested {
		return nil, fmt.Errorf("spec.values is nested deeper than %d", maxNested)
	}
	if len(v.From) > maxSources {
		return nil, fmt.Errorf("spec.valuesFrom has %d entries, more than %d", len(v.From), maxSources)
	}
	r := &Release{unknown: map[string]bool{}, budget: budget{
		yaml: archive.YAMLBudget{Bytes: maxSourceBytes, Entries: maxSourceEntries}, indexes: maxListIndexes,
	}}
	for i, ref := range v.From {
		if err := r.read(i, ref, v.Namespace); err != nil {
			return nil, err
		}
	}
	if len(r.sources) == 0 {
		r.Values = v.Inline
	} else if err := r.compose(ctx, v.Inline); err != nil {
		return nil, err
	}
	if r.Values == nil {
		r.Values = map[string]any{}
	}
	if !r.collect(r.Values, maxNested) {
		what := "the composed values are"
		if len(r.sources) == 0 {
			what = "spec.values is"
		}
		return nil, fmt.Errorf("%s nested deeper than %d", what, maxNested)
	}
	return r, nil
}

// Literal returns the release with unresolved strings taken literally; false when there are none. In a cluster, Flux
// has resolved them before, and what looks unresolved is plain text; in a Git tree, it may be either.
func (r *Release) Literal() (*Release, bool) {
	literal := *r
	literal.unknown = map[string]bool{}
	for s := range r.unknown {
		if strings.HasPrefix(s, sentinel) {
			literal.unknown[s] = true
		}
	}
	return &literal, len(literal.unknown) < len(r.unknown)
}

// Plain returns a copy of the values as Flux hands them to Helm: numbers are floats. Unresolved strings are unchanged.
func (r *Release) Plain() (map[string]any, error) { return decoded(r.Values) }

// Filled returns a copy as Plain does, with the given text in place of every unresolved string.
func (r *Release) Filled(text string) (map[string]any, error) {
	return decoded(fill(r.Values, r.unknown, text))
}

func decoded(values any) (map[string]any, error) {
	data, err := json.Marshal(values)
	if err != nil {
		return nil, errors.New("the values cannot be written as JSON")
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, errors.New("the values cannot be read as JSON")
	}
	return out, nil
}

// fill copies a value with a text in place of the unknown strings. Keys are unchanged.
func fill(v any, unknown map[string]bool, text string) any {
	switch v := v.(type) {
	case string:
		if unknown[v] {
			return text
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, c := range v {
			out[k] = fill(c, unknown, text)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, c := range v {
			out[i] = fill(c, unknown, text)
		}
		return out
	}
	return v
}

// HasUnresolved reports whether some values are only resolved before Helm receives them.
func (r *Release) HasUnresolved() bool { return len(r.unknown) > 0 }

// Secrets returns the texts and numbers that come from Secrets, as they are written, without empty ones.
func (r *Release) Secrets() []string {
	found := map[string]bool{}
	for _, s := range r.sources {
		if !s.known || s.ref.Kind != "Secret" {
			continue
		}
		found[strings.TrimSpace(s.content)] = true
		for line := range strings.Lines(s.content) {
			if s.ref.TargetPath != "" {
				found[strings.TrimSpace(line)] = true
			}
		}
		if doc, err := common.ReadValues([]byte(s.content)); err == nil {
			leaves(doc.AsMap(), found)
		}
	}
	delete(found, "")
	return slices.Sorted(maps.Keys(found))
}

// leaves collects the scalars of decoded values, and the lines of those with more than one.
func leaves(v any, into map[string]bool) {
	switch v := v.(type) {
	case nil, bool:
	case map[string]any:
		for _, c := range v {
			leaves(c, into)
		}
	case []any:
		for _, c := range v {
			leaves(c, into)
		}
	default:
		text := fmt.Sprint(v)
		into[strings.TrimSpace(text)] = true
		for line := range strings.Lines(text) {
			into[strings.TrimSpace(line)] = true
		}
	}
}

// read reads one entry of valuesFrom.
func (r *Release) read(i int, ref validators.ValuesSource, namespace string) error {
	if err := r.takeIndexes(i, ref.TargetPath, false); err != nil {
		return err
	}
	s := source{index: i, ref: ref}
	name := fmt.Sprintf("%s %s/%s", ref.Kind, namespace, ref.Name)
	dataKey := ref.Key
	if dataKey == "" {
		dataKey = "values.yaml"
	}
	missing := func(what string) {
		r.Missing = append(r.Missing, name+" "+what)
		r.sources = append(r.sources, s)
	}
	switch {
	case ref.Presence == validators.Unknown:
		missing("could not be read")
		return nil
	case ref.Presence == validators.Absent || ref.Object == nil:
		if !ref.Optional {
			missing("does not exist")
		}
		return nil
	}
	content, ok, reason := content(ref.Object, dataKey)
	switch {
	case reason != "":
		missing("key " + dataKey + " " + reason)
		return nil
	case !ok:
		if !ref.Optional {
			missing("has no key " + dataKey)
		}
		return nil
	}
	s.content, s.known = content, true
	if ref.TargetPath == "" {
		if err := r.budget.yaml.Take([]byte(content)); err != nil {
			return fmt.Errorf("%s key %s: %w", name, dataKey, err)
		}
		// Flux's library would quote the text in its error.
		doc, err := common.ReadValues([]byte(content))
		if err != nil {
			s.known = false
			missing("key " + dataKey + " is not YAML, which Flux rejects")
			return nil
		}
		s.document = doc.AsMap()
	} else {
		if r.budget.yaml.Bytes -= int64(len(content)); r.budget.yaml.Bytes < 0 {
			return fmt.Errorf("the documents of spec.valuesFrom have more than %d bytes", maxSourceBytes)
		}
		if !ref.Literal { // a comma in it ends the value, and another path follows
			if err := r.takeIndexes(i, content, true); err != nil {
				return err
			}
		}
	}
	r.sources = append(r.sources, s)
	return nil
}

// content returns one key of a ConfigMap or Secret. The reason is why a key that exists cannot be read.
func content(o *unstructured.Unstructured, key string) (text string, ok bool, reason string) {
	const isEncrypted = "is encrypted"
	if unresolved.IsEncryptedObject(o.Object) {
		return "", false, isEncrypted
	}
	if o.GetKind() == "Secret" {
		// A manifest may have stringData, which the API server merges into data.
		if s, found, _ := unstructured.NestedString(o.Object, "stringData", key); found {
			if unresolved.IsEncrypted(s) {
				return s, true, isEncrypted
			}
			return s, true, ""
		}
	}
	s, found, err := unstructured.NestedString(o.Object, "data", key)
	if err != nil || !found {
		return "", false, ""
	}
	if unresolved.IsEncrypted(s) {
		return s, true, isEncrypted
	}
	if o.GetKind() != "Secret" {
		return s, true, ""
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", true, "is not base64"
	}
	if unresolved.IsEncrypted(string(data)) {
		return string(data), true, isEncrypted
	}
	return string(data), true, ""
}

// compose calls Flux's library with what is known.
//
// A missing document may override all documents before it and the chart's defaults: only the documents after it and the
// inline values are certain. Where a targetPath is set also depends on maps that the missing document may contain.
func (r *Release) compose(ctx context.Context, inline map[string]any) error {
	last, paths := -1, false
	for i, s := range r.sources {
		if s.ref.TargetPath != "" {
			paths = true
		} else if !s.known {
			last = i
		}
	}
	r.Open = last >= 0
	if paths {
		// Setting a path changes the inline maps.
		inline = runtime.DeepCopyJSON(inline)
	}
	reader := documents{}
	var refs []meta.ValuesReference
	for i, s := range r.sources {
		if r.Open && (i <= last || s.ref.TargetPath != "") {
			continue
		}
		text := s.content
		if !s.known {
			text = sentinel
		}
		name := strconv.Itoa(i)
		reader.texts = append(reader.texts, text)
		refs = append(refs, meta.ValuesReference{Kind: "ConfigMap", Name: name, TargetPath: s.ref.TargetPath, Literal: s.ref.Literal})
		reader.names = append(reader.names, name)
	}
	composed, err := fromReferences(ctx, reader, inline, refs)
	if err != nil {
		return err
	}
	r.Values = composed
	if r.Open {
		// The missing document may have other values in place of the maps that a path leads through.
		for _, s := range r.sources {
			if s.ref.TargetPath != "" {
				markUnknown(r.Values, s.ref.TargetPath)
			}
		}
	}
	return nil
}

func fromReferences(
	ctx context.Context, reader client.Client, inline map[string]any, refs []meta.ValuesReference,
) (out map[string]any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("spec.valuesFrom cannot be composed: its library panicked")
		}
	}()
	composed, err := chartutil.ChartValuesFromReferences(ctx, logr.Discard(), reader, "", inline, refs...)
	if err != nil {
		// The error may quote a value, which may be a secret.
		var ref *chartutil.ErrValuesReference
		if errors.As(err, &ref) && errors.Is(ref.Reason, chartutil.ErrValueMerge) {
			return nil, errors.New("spec.valuesFrom cannot be composed: a value cannot be set at its targetPath")
		}
		return nil, errors.New("spec.valuesFrom cannot be composed by Flux")
	}
	return composed, nil
}

// documents passes the texts that were read to Flux's library, as ConfigMaps. The library only calls Get.
type documents struct {
	client.Client
	names, texts []string
}

// Get implements client.Client.
func (d documents) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	cm, ok := obj.(*corev1.ConfigMap)
	i := slices.Index(d.names, key.Name)
	if !ok || i < 0 {
		return fmt.Errorf("unexpected read of %s", key)
	}
	cm.Data = map[string]string{"values.yaml": d.texts[i]}
	return nil
}

// takeIndexes takes the list indexes in the targetPath of an entry, or in its value, from the budget.
func (r *Release) takeIndexes(i int, text string, value bool) error {
	if r.budget.indexes -= listIndexes(text, value); r.budget.indexes < 0 {
		return fmt.Errorf("the list indexes of spec.valuesFrom[%d].targetPath and of the entries before it are more than %d together",
			i, maxListIndexes)
	}
	return nil
}

// listIndexes returns the sum of the list indexes in an assignment of Helm's --set, or in its value. In a value, brackets
// are plain text; after a comma another path may follow.
func listIndexes(assignment string, value bool) int {
	sum := 0
	for i := 0; i < len(assignment) && sum <= maxListIndexes; i++ {
		switch assignment[i] {
		case '\\':
			i++
		case '=':
			value = true
		case ',', '{', '}':
			value = false
		case '[':
			if value {
				continue
			}
			digits, _, ok := strings.Cut(assignment[i+1:min(len(assignment), i+16)], "]")
			if index, err := strconv.Atoi(strings.TrimSpace(digits)); ok && err == nil && index > 0 {
				sum += index
			} else if !ok {
				sum = maxListIndexes + 1 // Helm rejects an index of so many digits
			}
		}
	}
	return sum
}

// markUnknown makes the value at a targetPath unknown, or the value at the longest prefix of it that exists.
func markUnknown(values map[string]any, targetPath string) {
	m := values
	keys := splitPath(targetPath)
	for i, k := range keys {
		next, ok := m[k].(map[string]any)
		if i == len(keys)-1 || !ok {
			m[k] = sentinel
			return
		}
		m = next
	}
}

// splitPath splits a dotted path as Helm's --set does, up to the first list index.
func splitPath(p string) []string {
	var keys []string
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		switch {
		case p[i] == '\\' && i+1 < len(p):
			i++
			b.WriteByte(p[i])
		case p[i] == '.':
			keys = append(keys, b.String())
			b.Reset()
		case p[i] == '[':
			return append(keys, b.String())
		default:
			b.WriteByte(p[i])
		}
	}
	return append(keys, b.String())
}

// collect collects the unresolved strings of a value, keys included. It reports whether the value is nested at most as deep as that.
func (r *Release) collect(v any, deepest int) bool {
	switch v := v.(type) {
	case string:
		r.collectString(v)
	case map[string]any:
		if deepest == 0 {
			return false
		}
		for k, c := range v {
			r.collectString(k)
			if !r.collect(c, deepest-1) {
				return false
			}
		}
	case []any:
		if deepest == 0 {
			return false
		}
		for _, c := range v {
			if !r.collect(c, deepest-1) {
				return false
			}
		}
	}
	return true
}

func (r *Release) collectString(s string) {
	if strings.HasPrefix(s, sentinel) || unresolved.String(s) {
		r.unknown[s] = true
	}
}

// Origin returns the entry of valuesFrom, counted from 1, that last set the value at the path; 0 when none did.
func (r *Release) Origin(path validators.Path) int {
	for _, s := range slices.Backward(r.sources) {
		if !s.known {
			continue
		}
		if s.ref.TargetPath != "" {
			if covers(splitPath(s.ref.TargetPath), path) {
				return s.index + 1
			}
			continue
		}
		if len(path) > 0 && Has(s.document, path) {
			return s.index + 1
		}
	}
	return 0
}

func covers(keys []string, path validators.Path) bool {
	if len(keys) > len(path) {
		return false
	}
	for i, k := range keys {
		if path[i].IsIndex() || path[i].Key != k {
			return false
		}
	}
	return true
}

// Has reports whether there is a value at the path, null included.
func Has(root any, path validators.Path) bool {
	for _, s := range path {
		switch c := root.(type) {
		case map[string]any:
			v, ok := c[s.Key]
			if s.IsIndex() || !ok {
				return false
			}
			root = v
		case []any:
			if !s.IsIndex() || s.Index >= len(c) {
				return false
			}
			root = c[s.Index]
		default:
			return false
		}
	}
	return true
}
