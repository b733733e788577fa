package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"sigs.k8s.io/yaml"
)

// defaultedFile is the default policy as the API server would store it.
const defaultedFile = "internal/policy/default.json"

// generateDefaulted writes the default policy with the defaults of the CRD, so that the program does not compile the
// CRD when it starts. It comes after generateCRD and generatePolicy.
func generateDefaulted(out files) error {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(out[crdFile], &crd); err != nil {
		return fmt.Errorf("decoding %s: %w", crdFile, err)
	}
	var schema apiextensions.JSONSchemaProps
	v1 := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v1, &schema, nil); err != nil {
		return fmt.Errorf("converting the schema of %s: %w", crdFile, err)
	}
	structural, err := structuralschema.NewStructural(&schema)
	if err != nil {
		return fmt.Errorf("the schema of %s: %w", crdFile, err)
	}
	var object map[string]any
	if err := yaml.UnmarshalStrict(out[policyFile], &object); err != nil {
		return fmt.Errorf("decoding %s: %w", policyFile, err)
	}
	defaulting.Default(object, structural)
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(object); err != nil {
		return fmt.Errorf("encoding the default policy: %w", err)
	}
	out[defaultedFile] = b.Bytes()
	return nil
}
