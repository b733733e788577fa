package helmrelease

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"helm.sh/helm/v4/pkg/strvals"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ValuesNotComposable is the rule helm-values-not-composable.
//
// helm-controller composes the values before Helm sees the chart (fluxcd/pkg/chartutil: ChartValuesFromReferences), so
// that this rule needs no chart. A whole document of valuesFrom must be a YAML map, and a targetPath is set with Helm's
// own parser into spec.values and the documents before it: each key on the way must be a map or be missing. At
// admission the content of Secrets is not evaluated.
var ValuesNotComposable = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR015",
		Name:     "helm-values-not-composable",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{
			Admission: v1alpha1.ActionWarn,
			Offline:   v1alpha1.ActionDeny,
			Reason:    "The object of valuesFrom may be applied after the HelmRelease.",
		},
		Doc: validators.Doc{
			Title: "Values cannot be composed",
			Why: "helm-controller cannot compose the release's values: the release is not installed, and an installed " +
				"one is no longer upgraded.",
			Fix: "Let the key hold a YAML map, or set targetPath for a single value. Let a targetPath lead through " +
				"maps only.",
			Since: "v0.1.0",
		},
		Reads: []schema.GroupKind{{Kind: "ConfigMap"}, {Kind: "Secret"}},
	},
	Check: checkComposable,
}

// The limits of a composition. Helm allocates a list up to its index, and every path is set in a copy of the values.
const (
	maxComposed    = 1 << 20 // of the documents that are read, in bytes
	maxEntries     = 50_000  // of the maps and lists of one document, by the characters that separate them
	maxAliases     = 100     // of one document with anchors
	maxTargetPaths = 64
	maxListIndexes = 10_000 // of all target paths together
)

func checkComposable(ctx context.Context, p *validators.Pass) error {
	values := releaseValues(ctx, p.Object, p.Lookup)
	c := composition{pass: p, inline: values.Inline, left: maxComposed}
	paths, indexes := maxTargetPaths, maxListIndexes
	for i, s := range values.From {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		at := validators.NewPath("spec", "valuesFrom").Index(i)
		if s.TargetPath != "" {
			paths--
			if indexes -= listIndexes(s.TargetPath); paths < 0 || indexes < 0 {
				p.Skip("the targetPaths of spec.valuesFrom, or their list indexes, are too many")
				return nil
			}
			c.set(at.Child("targetPath"), s.TargetPath)
			continue
		}
		c.merge(at, s)
	}
	return nil
}

// expands reports whether a document may take many times its size when it is decoded.
func expands(content string) bool {
	entries := 0
	for _, separator := range []string{",", "\n", "[", "{"} {
		entries += strings.Count(content, separator)
	}
	return entries > maxEntries || strings.Contains(content, "&") && strings.Count(content, "*") > maxAliases
}

// listIndexes returns the sum of the list indexes in a target path, at least.
func listIndexes(path string) int {
	sum := 0
	for part := range strings.SplitSeq(path, "[") {
		digits, _, _ := strings.Cut(part, "]")
		if n, err := strconv.Atoi(strings.TrimSpace(digits)); err == nil && n > 0 {
			sum = min(sum+min(n, maxListIndexes+1), maxListIndexes+1)
		}
	}
	return sum
}

// composition composes values as far as they are known.
type composition struct {
	pass   *validators.Pass
	inline map[string]any
	// document is what the documents so far have; nil if it is not known.
	document map[string]any
	left     int
}

// merge adds a whole document.
func (c *composition) merge(at validators.Path, s validators.ValuesSource) {
	p := c.pass
	if s.Presence == validators.Absent && s.Optional {
		return
	}
	content, ok := contentOf(s)
	if ok && p.Provenance == nil && s.Kind == "Secret" {
		ok = false
	}
	if c.left -= len(content); !ok || c.left < 0 || expands(content) {
		c.document = nil
		return
	}
	var document any
	err := yaml.Unmarshal([]byte(content), &document)
	m, isMap := document.(map[string]any)
	switch {
	case isMap:
		c.document = merged(c.document, m)
		return
	case err == nil && document == nil, unresolved.HasVariable(content), unresolved.HasTemplate(content):
		return // empty, or written otherwise later
	}
	c.document = nil
	where, written := at.Child("valuesKey"), key(s)
	if where.Lookup(p.Object.Object) == nil {
		where = at.Child("name")
	}
	problem := "is no YAML"
	if err == nil {
		problem = "is " + kindOf(document) + ", not a map"
	}
	f := p.Report(where, nil, "%s of %s %s/%s %s; it cannot be merged into the values", written, s.Kind, p.Object.GetNamespace(), s.Name, problem)
	f.Key = s.Kind + " " + s.Name + " " + written
	if err == nil && kindOf(document) != listKind {
		f.Fix = "Set targetPath to the value that the text is for, or let the key hold a YAML map."
	}
}

// set sets a path as Helm does, with a value that does not matter.
func (c *composition) set(at validators.Path, path string) {
	if unresolved.String(path) || c.mayBeMap(path) {
		return
	}
	into := runtime.DeepCopyJSON(merged(c.document, c.inline))
	if err := setPath(into, path); err != nil {
		f := c.pass.Report(at, path, "the targetPath %s cannot be set: %v", path, err)
		f.Key = path
		return
	}
	c.document = into
}

// mayBeMap reports whether the path begins in an unresolved value.
func (c *composition) mayBeMap(path string) bool {
	at := validators.NewPath("spec", "values")
	return slices.ContainsFunc(c.pass.Unresolved, func(u validators.Path) bool {
		return u.HasPrefix(at) && (len(u) == len(at) || strings.HasPrefix(path, u[len(at)].Key))
	})
}

var errNoMap = errors.New("it leads through a value that is no map or list")

// setPath calls Helm's parser, which panics where a key on the way is no map.
func setPath(into map[string]any, path string) (err error) {
	defer func() {
		if recover() != nil {
			err = errNoMap
		}
	}()
	err = strvals.ParseInto(path+"=x", into)
	if err != nil {
		return errNoMap
	}
	return nil
}

// merged merges maps as Flux does: those in both deeply, other values of the second replace those of the first.
func merged(a, b map[string]any) map[string]any {
	out := make(map[string]any, len(a)+len(b))
	maps.Copy(out, a)
	for key, value := range b {
		if m, ok := value.(map[string]any); ok {
			if own, ok := out[key].(map[string]any); ok {
				out[key] = merged(own, m)
				continue
			}
		}
		out[key] = value
	}
	return out
}

// contentOf returns the text of a key; false if it is not known.
func contentOf(s validators.ValuesSource) (string, bool) {
	if s.Presence != validators.Present || s.Object == nil || unresolved.IsEncryptedObject(s.Object.Object) {
		return "", false
	}
	if s.Kind == "Secret" {
		if text, found, _ := unstructured.NestedString(s.Object.Object, "stringData", key(s)); found {
			return text, !unresolved.IsEncrypted(text)
		}
	}
	text, found, _ := unstructured.NestedString(s.Object.Object, "data", key(s))
	if !found || unresolved.IsEncrypted(text) {
		return "", false
	}
	if s.Kind != "Secret" {
		return text, true
	}
	decoded, err := base64.StdEncoding.DecodeString(text)
	return string(decoded), err == nil && !unresolved.IsEncrypted(string(decoded))
}

const listKind = "a list"

// kindOf names the kind of a YAML value.
func kindOf(v any) string {
	switch v.(type) {
	case []any:
		return listKind
	case string:
		return "a text"
	case bool:
		return "a boolean"
	case float64, int64, int:
		return "a number"
	}
	return fmt.Sprintf("%T", v)
}
