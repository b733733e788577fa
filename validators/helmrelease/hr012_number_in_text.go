package helmrelease

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// NumberForText is the rule helm-value-number-for-text.
//
// YAML reads 3.10, 0123456 and 12e5 as numbers, and Helm has every number of the values as a float: {{ .Values.tag }}
// prints 20240101 as 2.0240101e+07. Only values that a chart prints into text are checked: tags and versions, and what
// is below labels or annotations. A number is reported only if it is certainly printed otherwise than it is written.
// In a cluster its text is lost, and the exponent alone shows.
var NumberForText = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR012",
		Name:     "helm-value-number-for-text",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Value is read as a number",
			Why: "Without quotes YAML reads the value as a number, and Helm prints that number: 3.10 becomes 3.1, " +
				"20240101 becomes 2.0240101e+07, 0123456 becomes 42798. The image or the version does not exist, or is " +
				"another one.",
			Fix:   "Put the value in quotes.",
			Since: "v0.1.0",
		},
	},
	Check: checkNumberForText,
}

func checkNumberForText(_ context.Context, p *validators.Pass) error {
	at := validators.NewPath("spec", "values")
	values, _ := at.Lookup(p.Object.Object).(map[string]any)
	n := numbers{pass: p, at: validators.NewTrail("spec", "values")}
	n.walk(values, false)
	return nil
}

type numbers struct {
	pass *validators.Pass
	at   *validators.Trail // to the values that are checked
}

// walk checks the values below a map; in texts all of them are text. Findings are sorted, so that keys need not be.
func (n *numbers) walk(values map[string]any, texts bool) {
	for key, v := range values {
		switch v := v.(type) {
		case map[string]any:
			n.at.EnterKey(key)
			n.walk(v, isTextMap(key))
			n.at.Leave()
		case []any:
			n.at.EnterKey(key)
			for i, item := range v {
				if m, ok := item.(map[string]any); ok {
					n.at.EnterIndex(i)
					n.walk(m, false)
					n.at.Leave()
				}
			}
			n.at.Leave()
		case int64, float64:
			if texts || isTextKey(key) {
				n.at.EnterKey(key)
				n.check(n.at.Path(), v)
				n.at.Leave()
			}
		}
	}
}

func (n *numbers) check(at validators.Path, value any) {
	printed := fmt.Sprint(asFloat(value))
	written := fmt.Sprint(value)
	if from := n.pass.Provenance; from != nil && from.Written != nil {
		text := from.Written(at)
		if unresolved.HasVariable(text) {
			return
		}
		if text != "" {
			written = text
		}
	}
	if written == printed {
		return
	}
	f := n.pass.Report(at, value, "%s is the number %s; Helm prints %s", at, written, printed)
	if written != fmt.Sprint(value) || !strings.Contains(written, "e") {
		f.Edits = []validators.Edit{{Op: validators.EditReplace, Path: at, Value: written}}
	}
}

func asFloat(v any) float64 {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case float64:
		return v
	}
	return 0
}

// isTextKey reports whether charts print the value of a key into text: the tag of an image, a version.
func isTextKey(key string) bool {
	return len(key) >= len("tag") && (strings.EqualFold(key, "tag") || strings.EqualFold(key, "appVersion") || strings.EqualFold(key, "imageVersion") ||
		hasSuffixAnyCase(key, "imagetag") || hasSuffixAnyCase(key, "image_tag") || hasSuffixAnyCase(key, "image-tag"))
}

// isTextMap reports whether Kubernetes takes nothing but text below a key.
func isTextMap(key string) bool {
	return hasSuffixAnyCase(key, "labels") || hasSuffixAnyCase(key, "annotations")
}

// hasSuffixAnyCase reports whether a text has a suffix, whatever the case of its letters.
func hasSuffixAnyCase(s, suffix string) bool {
	return len(s) >= len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix)
}
