package policy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/manifests"
	"github.com/flux-admission/flux-admission/validators"
)

// celTimeout bounds the CEL rules of the CRD; their cost is bounded besides.
const celTimeout = 10 * time.Second

// crdSchema is the schema of the AdmissionPolicy CRD, as the API server uses it.
type crdSchema struct {
	structural *structuralschema.Structural
	openapi    validation.SchemaValidator
	cel        *cel.Validator
}

// policySchema reads the embedded CRD, once.
var policySchema = sync.OnceValues(func() (*crdSchema, error) {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(manifests.PolicyCRD, &crd); err != nil {
		return nil, fmt.Errorf("reading the embedded CRD: %w", err)
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, &internal, nil); err != nil {
		return nil, fmt.Errorf("reading the embedded CRD: %w", err)
	}
	structural, err := structuralschema.NewStructural(&internal)
	if err != nil {
		return nil, fmt.Errorf("reading the embedded CRD: %w", err)
	}
	openapi, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		return nil, fmt.Errorf("reading the embedded CRD: %w", err)
	}
	return &crdSchema{structural, openapi, cel.NewValidator(structural, true, celconfig.PerCallLimit)}, nil
})

// check does what the API server does with a strict write: unknown fields, defaults, OpenAPI, list types, CEL.
func (s *crdSchema) check(object map[string]any) []problem {
	var problems []problem
	unknown := pruning.PruneWithOptions(object, s.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, name := range unknown {
		path := pathFromField(name)
		last := path[len(path)-1].Key
		problems = append(problems, problem{path, "no such field" + suggestion(last, s.known(path[:len(path)-1]))})
	}
	if len(problems) > 0 {
		return problems
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(object, s.structural)
	defaulting.Default(object, s.structural)
	errs := validation.ValidateCustomResource(nil, object, s.openapi)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.structural, object)...)
	if len(errs) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), celTimeout)
		defer cancel()
		celErrs, _ := s.cel.Validate(ctx, nil, s.structural, object, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, celErrs...)
	}
	for _, e := range errs {
		problems = append(problems, fromFieldError(object, e))
	}
	return problems
}

func fromFieldError(object map[string]any, e *field.Error) problem {
	p := problem{pathFromField(strings.TrimPrefix(e.Field, "<nil>")), e.ErrorBody()}
	if last := len(p.path) - 1; last >= 0 && (p.path[last].Key == "action" || p.path[last].Key == "onUnknown") {
		if _, isBool := p.path.Lookup(object).(bool); isBool {
			p.text += `; YAML reads Off without quotes as false, write "Off"`
		}
	}
	return p
}

// known are the fields that the schema has at a path.
func (s *crdSchema) known(path validators.Path) []string {
	at := s.structural
	for _, step := range path {
		switch {
		case at == nil:
			return nil
		case step.IsIndex():
			at = at.Items
		default:
			next, ok := at.Properties[step.Key]
			if !ok {
				return nil
			}
			at = &next
		}
	}
	if at == nil {
		return nil
	}
	names := make([]string, 0, len(at.Properties))
	for n := range at.Properties {
		names = append(names, n)
	}
	return names
}
