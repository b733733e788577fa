package schema

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/flux-admission/flux-admission/validators"
)

// metadataFields are the fields of metav1.ObjectMeta: the API server rejects any other on a strict write, whatever the kind.
var metadataFields = []string{
	"annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName", "generation", "labels",
	"managedFields", "name", "namespace", "ownerReferences", "resourceVersion", "selfLink", "uid",
}

// unknownMetadata returns the fields below metadata that no object has.
func unknownMetadata(o *unstructured.Unstructured) []validators.Path {
	m, _ := o.Object["metadata"].(map[string]any)
	var out []validators.Path
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(metadataFields, k) {
			out = append(out, validators.NewPath("metadata", k))
		}
	}
	return out
}

// invalidMetadata returns what the API server rejects of the metadata of an object of any kind (k8s.io/apimachinery:
// validation.ValidateObjectMetaAccessor). Messages quote no values.
func invalidMetadata(o *unstructured.Unstructured) []validators.InvalidValue {
	m, ok := o.Object["metadata"].(map[string]any)
	if !ok {
		return nil
	}
	var out []validators.InvalidValue
	report := func(at validators.Path, messages []string) {
		if len(messages) > 0 {
			out = append(out, validators.InvalidValue{Path: at, Message: "is invalid: " + strings.Join(messages, "; ")})
		}
	}
	valid := nameRule(o.GroupVersionKind().GroupKind())
	if name, ok := m["name"].(string); ok && name != "" {
		report(validators.NewPath("metadata", "name"), valid(name, false))
	}
	if prefix, ok := m["generateName"].(string); ok && prefix != "" {
		report(validators.NewPath("metadata", "generateName"), valid(prefix, true))
	}
	if ns, ok := m["namespace"].(string); ok && ns != "" {
		report(validators.NewPath("metadata", "namespace"), validation.ValidateNamespaceName(ns, false))
	}
	labels, _ := m["labels"].(map[string]any)
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		at := validators.NewPath("metadata", "labels", k)
		if errs := utilvalidation.IsQualifiedName(k); len(errs) > 0 {
			report(at, append([]string{"its key is no label key"}, errs...))
		}
		if v, ok := labels[k].(string); ok {
			report(at, utilvalidation.IsValidLabelValue(v))
		}
	}
	annotations, _ := m["annotations"].(map[string]any)
	size := 0
	for _, k := range slices.Sorted(maps.Keys(annotations)) {
		v, _ := annotations[k].(string)
		size += len(k) + len(v)
		// The API server compares the lower-case key (validation.ValidateAnnotations).
		if errs := utilvalidation.IsQualifiedName(strings.ToLower(k)); len(errs) > 0 {
			report(validators.NewPath("metadata", "annotations", k), append([]string{"its key is no annotation key"}, errs...))
		}
	}
	if size > validation.TotalAnnotationSizeLimitB {
		report(validators.NewPath("metadata", "annotations"), []string{fmt.Sprintf("annotations may have at most %d bytes together", validation.TotalAnnotationSizeLimitB)})
	}
	finalizers, _ := m["finalizers"].([]any)
	for i, f := range finalizers {
		if name, ok := f.(string); ok {
			for _, e := range validation.ValidateFinalizerName(name, field.NewPath("metadata", "finalizers")) {
				report(validators.NewPath("metadata", "finalizers").Index(i), []string{e.Detail})
			}
		}
	}
	return out
}

// nameRule returns what the API server allows as the name of a kind. Kinds that are not listed, custom resources among them, have names that
// are DNS subdomains.
func nameRule(gk k8sschema.GroupKind) validation.ValidateNameFunc {
	switch gk.Group {
	case "rbac.authorization.k8s.io": // pkg/apis/rbac/validation: ValidateRBACName
		return pathSegment
	case "":
		switch gk.Kind {
		case "Namespace":
			return validation.ValidateNamespaceName
		case "Service":
			// Since Kubernetes 1.34 a name may begin with a digit where the check RelaxedServiceNameValidation is on: only what both refuse is certain.
			return validation.NameIsDNSLabel
		}
	}
	if strings.HasSuffix(gk.Group, ".openshift.io") {
		// OpenShift's API servers are not built of CustomResourceDefinitions, and their users, groups and images have names with any character
		// that a path may hold.
		return pathSegment
	}
	return validation.NameIsDNSSubdomain
}

// pathSegment validates a name that may hold any character that a segment of a URL's path may hold; a prefix may end as
// no whole name may.
func pathSegment(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}
