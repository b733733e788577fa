package webhook

import (
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/json"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// review is an AdmissionReview as it is read: the objects in it are decoded in the same pass, into maps. Read as admissionv1.AdmissionReview they
// would be copied first and read a second time, which is a third of what a review costs.
type review struct {
	metav1.TypeMeta `json:",inline"`
	Request         *request `json:"request"`
}

// request is what is of interest here of an admissionv1.AdmissionRequest.
type request struct {
	UID         types.UID               `json:"uid"`
	Kind        metav1.GroupVersionKind `json:"kind"`
	SubResource string                  `json:"subResource"`
	Name        string                  `json:"name"`
	Namespace   string                  `json:"namespace"`
	Operation   admissionv1.Operation   `json:"operation"`
	UserInfo    struct {
		Username string `json:"username"`
	} `json:"userInfo"`
	Object    any  `json:"object"`
	OldObject any  `json:"oldObject"`
	DryRun    bool `json:"dryRun"`
}

// errNoReview is all that is said of a request that cannot be read; a parser's own words might quote it.
var errNoReview = errors.New("the request is not an AdmissionReview")

// decode reads an AdmissionReview. What could be read before an error is in the request.
func decode(body []byte, req *request) error {
	r := review{Request: req}
	if err := json.UnmarshalCaseSensitivePreserveInts(body, &r); err != nil || r.Request == nil {
		return errNoReview
	}
	if r.APIVersion != admissionv1.SchemeGroupVersion.String() || r.Kind != "AdmissionReview" {
		return fmt.Errorf("%w of %s", errNoReview, admissionv1.SchemeGroupVersion)
	}
	return nil
}

func (r *request) groupKind() schema.GroupKind {
	return schema.GroupKind{Group: r.Kind.Group, Kind: r.Kind.Kind}
}

// evaluation returns what rules and mutators are to look at; ok is false for a write that always passes: a deletion, a subresource, an object
// that is being deleted, an update that leaves what rules read as it was.
func (r *request) evaluation() (e validators.Request, ok bool, err error) {
	if r.SubResource != "" {
		return e, false, nil
	}
	switch r.Operation {
	case admissionv1.Create:
		e.Operation = validators.Create
	case admissionv1.Update:
		e.Operation = validators.Update
	case admissionv1.Delete, admissionv1.Connect:
		return e, false, nil
	default:
		return e, false, nil
	}
	if e.Object, err = r.object(r.Object); err != nil {
		return e, false, err
	}
	if webhookconfig.BeingDeleted(e.Object) {
		return e, false, nil
	}
	if e.Operation == validators.Update {
		if e.Old, err = r.object(r.OldObject); err != nil {
			return e, false, fmt.Errorf("the stored object: %w", err)
		}
		if webhookconfig.Unchanged(e.Object, e.Old) {
			return e, false, nil
		}
	}
	e.User, e.Stage = r.UserInfo.Username, validators.StageAdmission
	return e, true, nil
}

func (r *request) object(content any) (*unstructured.Unstructured, error) {
	fields, ok := content.(map[string]any)
	if !ok || fields == nil {
		return nil, errors.New("the request's object is not a JSON object")
	}
	o := &unstructured.Unstructured{Object: fields}
	if o.GetKind() == "" || o.GetAPIVersion() == "" {
		o.SetGroupVersionKind(schema.GroupVersionKind{Group: r.Kind.Group, Version: r.Kind.Version, Kind: r.Kind.Kind})
	}
	return o, nil
}
