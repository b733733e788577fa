// Package values composes the values of a Helm release as Flux and Helm do, by their own libraries: spec.valuesFrom and spec.values first,
// then the chart's defaults and those of its subcharts. Parts that are not known are kept apart, so that a schema can judge the rest.
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
	"github.com/flux-admission/flux-admission/validators"
)

// maxNested bounds how deep values are nested; beyond it there is no verdict.
const maxNested = 256

// Release is what Flux hands to Helm as a release's values, or what is known of it.
type Release struct {
	// Values are the known values. They may share maps with the inline values: they must not be changed.
	Values map[string]any
	// Open tells that a whole source of values is missing: keys that are not in Values may be there, and maps may have more keys.
	Open bool
	// Missing says which parts are not known, a phrase each.
	Missing []string

	// placeholders are strings in Values that stand for a value that is not known.
	placeholders map[string]bool
	sources      []source
}

// source is one entry of valuesFrom, read.
type source struct {
	index   int // in validators.Values.From
	ref     validators.ValuesSource
	content string
	known   bool
}

// sentinel stands for the value of a targetPath that is not known. No YAML document can hold the byte it starts with.
const sentinel = "\x00unknown"

// FromRelease composes spec.valuesFrom and spec.values. An error means that Flux could not compose them either, or that they are beyond
// the limits; its text quotes no value.
func FromRelease(ctx context.Context, v validators.Values) (*Release, error) {
	if archive.Depth(v.Inline, maxNested+1) > maxNested {
		return nil, fmt.Errorf("spec.values is nested deeper than %d", maxNested)
	}
	r := &Release{placeholders: map[string]bool{}}
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
	if archive.Depth(r.Values, maxNested+1) > maxNested {
		return nil, fmt.Errorf("the composed values are nested deeper than %d", maxNested)
	}
	collect(r.Values, r.placeholders)
	return r, nil
}

// Literal returns the release with its placeholders taken for what is written; false when there are none. In a cluster they were filled in
// before, and what looks like one is a text; in a Git tree it is not known which.
func (r *Release) Literal() (*Release, bool) {
	literal := *r
	literal.placeholders = map[string]bool{}
	for p := range r.placeholders {
		if strings.HasPrefix(p, sentinel) {
			literal.placeholders[p] = true
		}
	}
	return &literal, len(literal.placeholders) < len(r.placeholders)
}

// Plain returns a copy of the values, as Flux hands them to Helm: numbers are floats. Placeholders stay as they are written.
func (r *Release) Plain() (map[string]any, error) { return decoded(r.Values) }

// Filled returns a copy as Plain does, with one text in place of every value that is a placeholder.
func (r *Release) Filled(with string) (map[string]any, error) {
	return decoded(fill(r.Values, r.placeholders, with))
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

func fill(v any, placeholders map[string]bool, with string) any {
	switch v := v.(type) {
	case string:
		if placeholders[v] {
			return with
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, c := range v {
			out[k] = fill(c, placeholders, with)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, c := range v {
			out[i] = fill(c, placeholders, with)
		}
		return out
	}
	return v
}

// HasPlaceholders tells whether some values are filled in before Helm sees them.
func (r *Release) HasPlaceholders() bool { return len(r.placeholders) > 0 }

// Secrets returns the texts and numbers that come from Secrets, as they are written, none empty.
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

// leaves gathers the scalars of decoded values, and the lines of those that have more than one.
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

// read takes one entry of valuesFrom.
func (r *Release) read(i int, ref validators.ValuesSource, namespace string) error {
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
	content, ok, why := content(ref.Object, dataKey)
	switch {
	case why != "":
		missing("key " + dataKey + " " + why)
		return nil
	case !ok:
		if !ref.Optional {
			missing("has no key " + dataKey)
		}
		return nil
	}
	s.content, s.known = content, true
	if ref.TargetPath == "" {
		if err := archive.CheckYAML([]byte(content)); err != nil {
			return fmt.Errorf("%s key %s: %w", name, dataKey, err)
		}
		// The library would parse it again and quote the text in its error.
		if _, err := common.ReadValues([]byte(content)); err != nil {
			s.known = false
			missing("key " + dataKey + " is not YAML, which Flux refuses")
			return nil
		}
	}
	r.sources = append(r.sources, s)
	return nil
}

// content returns one key of a ConfigMap or Secret; why says for what reason it is there and cannot be known.
func content(o *unstructured.Unstructured, key string) (text string, ok bool, why string) {
	if _, encrypted := o.Object["sops"]; encrypted {
		return "", false, "is encrypted"
	}
	if o.GetKind() == "Secret" {
		// A manifest may carry stringData, which the API server merges into data.
		if s, found, _ := unstructured.NestedString(o.Object, "stringData", key); found {
			return s, true, encrypted(s)
		}
	}
	s, found, err := unstructured.NestedString(o.Object, "data", key)
	if err != nil || !found {
		return "", false, ""
	}
	if why := encrypted(s); why != "" || o.GetKind() != "Secret" {
		return s, true, why
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", true, "is not base64"
	}
	return string(data), true, encrypted(string(data))
}

func encrypted(s string) string {
	if strings.HasPrefix(s, "ENC[") {
		return "is encrypted"
	}
	return ""
}

// compose runs Flux's library over what is known.
//
// When a whole document is missing, the documents before it could all be overridden by it, and so could the chart's defaults: only those after
// it and the inline values are certain. Where a targetPath is set also depends on maps that the missing document may hold.
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
		// Setting a path writes into the inline maps.
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
		// A path leads through maps that the missing document may hold something else in place of.
		for _, s := range r.sources {
			if s.ref.TargetPath != "" {
				forget(r.Values, s.ref.TargetPath)
			}
		}
	}
	return nil
}

func fromReferences(ctx context.Context, reader client.Client, inline map[string]any, refs []meta.ValuesReference) (out map[string]any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("spec.valuesFrom cannot be composed: its library panicked")
		}
	}()
	composed, err := chartutil.ChartValuesFromReferences(ctx, logr.Discard(), reader, "", inline, refs...)
	if err != nil {
		// The text may quote a value, and a value may be a secret.
		var ref *chartutil.ErrValuesReference
		if errors.As(err, &ref) && errors.Is(ref.Reason, chartutil.ErrValueMerge) {
			return nil, errors.New("spec.valuesFrom cannot be composed: a value cannot be set at its targetPath")
		}
		return nil, errors.New("spec.valuesFrom cannot be composed by Flux")
	}
	return composed, nil
}

// documents gives Flux's library the texts that were read, as ConfigMaps. Only Get is ever called.
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

// forget makes the value at a targetPath unknown, or the value at the longest part of it that can be followed.
func forget(values map[string]any, targetPath string) {
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

// placeholder tells whether a string stands for something that is filled in before Helm sees it: a variable of Flux's post-build
// substitution, or a value encrypted by SOPS.
func placeholder(s string) bool {
	if strings.HasPrefix(s, sentinel) || strings.HasPrefix(s, "ENC[") {
		return true
	}
	_, rest, ok := strings.Cut(s, "${")
	return ok && strings.Contains(rest, "}")
}

// collect gathers the placeholders among values and keys.
func collect(v any, into map[string]bool) {
	switch v := v.(type) {
	case string:
		if placeholder(v) {
			into[v] = true
		}
	case map[string]any:
		for k, c := range v {
			if placeholder(k) {
				into[k] = true
			}
			collect(c, into)
		}
	case []any:
		for _, c := range v {
			collect(c, into)
		}
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
		doc, err := common.ReadValues([]byte(s.content))
		if err == nil && len(path) > 0 && Has(doc.AsMap(), path) {
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

// Has tells whether something stands at the path, be it null.
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
