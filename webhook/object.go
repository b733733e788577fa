package webhook

import (
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/registration"
)

// decode reads an object once, into maps. Its error quotes nothing of the object, which may hold secrets.
func decode(raw runtime.RawExtension, req *admission.Request) (*unstructured.Unstructured, error) {
	var content map[string]any
	if err := json.Unmarshal(raw.Raw, &content); err != nil || content == nil {
		return nil, errors.New("the request's object is not a JSON object")
	}
	o := &unstructured.Unstructured{Object: content}
	if o.GetKind() == "" || o.GetAPIVersion() == "" {
		o.SetGroupVersionKind(schema.GroupVersionKind{Group: req.Kind.Group, Version: req.Kind.Version, Kind: req.Kind.Kind})
	}
	return o, nil
}

// request returns what rules and mutators are to look at; ok is false for a write that always passes: a deletion, a subresource, an object
// that is being deleted, an update that leaves what rules read as it was.
func request(req *admission.Request) (r validators.Request, ok bool, err error) {
	if req.SubResource != "" {
		return r, false, nil
	}
	switch req.Operation {
	case admissionv1.Create:
		r.Operation = validators.Create
	case admissionv1.Update:
		r.Operation = validators.Update
	case admissionv1.Delete, admissionv1.Connect:
		return r, false, nil
	default:
		return r, false, nil
	}
	if r.Object, err = decode(req.Object, req); err != nil {
		return r, false, err
	}
	if registration.BeingDeleted(r.Object) {
		return r, false, nil
	}
	if r.Operation == validators.Update {
		if r.Old, err = decode(req.OldObject, req); err != nil {
			return r, false, fmt.Errorf("the stored object: %w", err)
		}
		if registration.Unchanged(r.Object, r.Old) {
			return r, false, nil
		}
	}
	r.User = req.UserInfo.Username
	return r, true, nil
}

func groupKind(req *admission.Request) schema.GroupKind {
	return schema.GroupKind{Group: req.Kind.Group, Kind: req.Kind.Kind}
}

func dryRun(req *admission.Request) bool { return req.DryRun != nil && *req.DryRun }
