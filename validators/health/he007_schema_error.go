package health

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// SchemaErrorInStatus is the rule schema-error-in-status.
//
// Conditions are texts for people. Only the shapes below are read, each from the sources of its author: kustomize-controller writes
// "KIND/NAMESPACE/NAME dry-run failed (Reason): ERROR", and "dry-run failed, reason: R, error: ERROR" before 1.2; the API server
// "failed to create typed patch object (…): .spec.x: field not declared in schema", "strict decoding error: unknown field "spec.x"",
// and "GROUP "NAME" is invalid: spec.x: …"; Helm "values don't meet the specifications of the schema(s) in the following chart(s):".
// What an admission webhook or policy answers may contain any of them, and is not a schema's.
var SchemaErrorInStatus = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HE007",
		Name:     "schema-error-in-status",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization, flux.HelmRelease}},
		Stages:   validators.StageAudit,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Schema refuses what Flux applies",
			Why: "The schema of a kind, or of the values of a chart, refuses what Flux applies. It is tried again and again with the same " +
				"result until somebody changes it in Git.",
			Fix:   "Correct the field that the message names.",
			Since: "v0.1.0",
		},
	},
	Check: checkSchemaError,
}

var (
	dryRunShape = regexp.MustCompile(`(?s)^([A-Z]\w*(?:/[a-z0-9.:-]+){1,2}) dry-run failed(?: \(\w+\)|, reason: \w+, error|, error)?: (.*)$`)
	helmShape   = regexp.MustCompile(`(?s)^Helm (?:install|upgrade) failed for release \S+ with chart \S+: (.*)$`)
	deniedShape = regexp.MustCompile(`admission webhook "[^"]+" denied the request|ValidatingAdmissionPolicy '[^']+'|failed calling webhook`)

	undeclaredShape = regexp.MustCompile(`(\.[^\s:]+): field not declared in schema`)
	unknownShape    = regexp.MustCompile(`strict decoding error: .*?unknown field "([^"]+)"`)
	// What follows "got" is the value.
	typedShape   = regexp.MustCompile(`failed to create typed patch object \([^)]*\): (?:errors:\s*)?(\.[^\s:]+): (expected [^,]+)`)
	invalidShape = regexp.MustCompile(`(?s)\S+ "[^"]+" is invalid: (.*)$`)
	fieldShape   = regexp.MustCompile(`([a-z][\w-]*(?:[.\[][\w.\[\]/-]+)*): (Invalid value|Unsupported value|Required value|Too long|Too many)\b`)
	valuesShape  = regexp.MustCompile(`(?s)values don't meet the specifications of the schema\(s\) in the following chart\(s\):\s*(.*)$`)
	// "at '/image/tag': …" since Helm 3.18, "image.tag: …" before.
	valueShape = regexp.MustCompile(`(?m)^\s*- (?:at ')?/?([\w./-]+)'?:`)
)

func checkSchemaError(_ context.Context, p *validators.Pass) error {
	list := condition.Of(p.Object)
	kinds := []string{"Ready"}
	if p.Object.GetKind() == flux.HelmRelease.Kind {
		kinds = []string{"Released", "Ready"} // Ready may be stale
	}
	for _, kind := range kinds {
		c := condition.Find(list, kind)
		if !c.Is("False") || outdated(c, p.Object) {
			continue
		}
		what, problem := schemaError(c.Message)
		if problem == "" {
			continue
		}
		f := p.Report(pathOf(c).Child("message"), nil, "the schema refuses %s: %s", what, short(problem))
		f.Key = what + ": " + problem
		return nil
	}
	return nil
}

// schemaError returns what a schema refuses, and the fields that it refuses; empty for a message that is not known. Values are left
// out, since they may come from a Secret.
func schemaError(message string) (what, problem string) {
	if deniedShape.MatchString(message) {
		return "", ""
	}
	inner := ""
	if m := dryRunShape.FindStringSubmatch(message); m != nil {
		what, inner = m[1], m[2]
	} else if m := helmShape.FindStringSubmatch(message); m != nil {
		what, inner = "what the chart creates", m[1]
		if v := valuesShape.FindStringSubmatch(inner); v != nil {
			return "the values of the chart", cmp.Or(fields(valueShape, v[1]), "the condition has the errors")
		}
	}
	if m := undeclaredShape.FindStringSubmatch(inner); m != nil {
		return what, strings.TrimPrefix(m[1], ".") + ": field not declared in schema"
	}
	if m := typedShape.FindStringSubmatch(inner); m != nil {
		return what, strings.TrimPrefix(m[1], ".") + ": " + m[2]
	}
	if m := unknownShape.FindStringSubmatch(inner); m != nil {
		return what, m[1] + ": unknown field"
	}
	// A change of an immutable field has this shape, too, and is no error of the field itself.
	if m := invalidShape.FindStringSubmatch(inner); m != nil && !strings.Contains(inner, "field is immutable") {
		return what, fields(fieldShape, m[1])
	}
	return "", ""
}

// maxFields limits the fields that a finding names.
const maxFields = 5

// fields returns the fields that an error names, without their values; empty if there are none.
func fields(shape *regexp.Regexp, text string) string {
	var out []string
	for _, m := range shape.FindAllStringSubmatch(text, -1) {
		if one := strings.Join(m[1:], ": "); !slices.Contains(out, one) && len(out) < maxFields {
			out = append(out, one)
		}
	}
	return strings.Join(out, ", ")
}
