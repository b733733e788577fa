package webhook

import (
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/json"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// review is an AdmissionReview. Its objects are decoded into maps in the same pass: admissionv1.AdmissionReview would
// have them copied first and decoded a second time, a third of the time of a review.
type review struct {
	metav1.TypeMeta `json:",inline"`
	Request         *request `json:"request"`
}

// request has the fields of an admissionv1.AdmissionRequest that are used.
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

	// incomplete names the parts of the objects that were not decoded; nil if there are none.
	incomplete *errTooComplex
	// size is the estimated memory of the objects, in bytes.
	size int64
}

// errNoReview is the error for any request that cannot be decoded; the parser's own error might quote a secret.
var errNoReview = errors.New("the request is not an AdmissionReview")

// decode decodes an AdmissionReview into req. With an error, req has what was decoded before it.
func decode(body []byte, req *request) error {
	r := review{Request: req}
	if v, ok := decodeFast(string(body)); ok && r.from(v) {
		return r.check()
	}
	if err := json.UnmarshalCaseSensitivePreserveInts(body, &r); err != nil || r.Request == nil {
		return errNoReview
	}
	return r.check()
}

func (r *review) check() error {
	if r.APIVersion != admissionv1.SchemeGroupVersion.String() || r.Kind != "AdmissionReview" {
		return fmt.Errorf("%w of %s", errNoReview, admissionv1.SchemeGroupVersion)
	}
	return nil
}

// from sets the review to a decoded one. It returns false if a field has another type; nothing is set then.
func (r *review) from(v any) bool {
	f := fields{ok: true}
	root := f.object(v)
	req := f.object(root["request"])
	kind, user := f.object(req["kind"]), f.object(req["userInfo"])
	to := request{
		UID:         types.UID(f.string(req["uid"])),
		Kind:        metav1.GroupVersionKind{Group: f.string(kind["group"]), Version: f.string(kind["version"]), Kind: f.string(kind["kind"])},
		SubResource: f.string(req["subResource"]), Name: f.string(req["name"]), Namespace: f.string(req["namespace"]),
		Operation: admissionv1.Operation(f.string(req["operation"])), Object: req["object"], OldObject: req["oldObject"],
	}
	to.UserInfo.Username = f.string(user["username"])
	if dry, found := req["dryRun"]; found && dry != nil {
		isBool := false
		to.DryRun, isBool = dry.(bool)
		f.ok = f.ok && isBool
	}
	apiVersion, reviewKind := f.string(root["apiVersion"]), f.string(root["kind"])
	if !f.ok || req == nil {
		return false
	}
	to.incomplete, to.size = r.Request.incomplete, r.Request.size
	*r.Request, r.APIVersion, r.Kind = to, apiVersion, reviewKind
	return true
}

// fields reads fields of decoded JSON. A null is a field that is not set.
type fields struct{ ok bool }

func (f *fields) string(v any) string {
	s, ok := v.(string)
	f.ok = f.ok && (ok || v == nil)
	return s
}

func (f *fields) object(v any) map[string]any {
	m, ok := v.(map[string]any)
	f.ok = f.ok && (ok || v == nil)
	return m
}

func (r *request) groupKind() schema.GroupKind {
	return schema.GroupKind{Group: r.Kind.Group, Kind: r.Kind.Kind}
}

// skipped reports whether it is certain that no rule evaluates the request. What could not be decoded is not certain.
func (r *request) skipped(p Policy) bool {
	if r.Kind.Kind == "" {
		return false
	}
	return r.SubResource != "" || !p.Handles(r.groupKind()) ||
		r.Operation == admissionv1.Delete || r.Operation == admissionv1.Connect
}

// key returns the object's namespace and name as namespace/name, for logs.
func (r *request) key() string { return klog.KRef(r.Namespace, r.Name).String() }

// evaluated returns what rules and mutators evaluate of the request; nil for a write that is always allowed: a
// deletion, a subresource, an object that is being deleted, an update that changes nothing that rules read.
func (r *request) evaluated() (*validators.Request, error) {
	if r.SubResource != "" {
		return nil, nil
	}
	e := &validators.Request{User: r.UserInfo.Username, Stage: validators.StageAdmission}
	switch r.Operation {
	case admissionv1.Create:
		e.Operation = validators.Create
	case admissionv1.Update:
		e.Operation = validators.Update
	case admissionv1.Delete, admissionv1.Connect:
		return nil, nil
	default:
		return nil, nil
	}
	var err error
	if e.Object, err = r.object(r.Object); err != nil {
		return nil, err
	}
	if webhookconfig.BeingDeleted(e.Object) {
		return nil, nil
	}
	if r.incomplete != nil {
		e.Incomplete, e.Unresolved = *r.incomplete, r.incomplete.paths
		for _, path := range r.incomplete.paths {
			remove(e.Object.Object, path)
		}
	}
	if e.Operation == validators.Update {
		if e.Old, err = r.object(r.OldObject); err != nil {
			return nil, fmt.Errorf("the stored object: %w", err)
		}
		if r.incomplete != nil {
			for _, path := range r.incomplete.paths {
				remove(e.Old.Object, path)
			}
		} else if webhookconfig.Unchanged(e.Object, e.Old) {
			return nil, nil
		}
	}
	return e, nil
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

// remove removes the field at a path of at most two keys.
func remove(object map[string]any, path validators.Path) {
	for _, step := range path[:len(path)-1] {
		object, _ = object[step.Key].(map[string]any)
	}
	delete(object, path[len(path)-1].Key)
}
