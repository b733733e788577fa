package validators

import (
	"encoding/json"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// JSONPatch returns the edits as a JSON Patch document (RFC 6902), in order. It fails when a value cannot be written as
// JSON.
func JSONPatch(edits []Edit) ([]byte, error) {
	type operation struct {
		Op    EditOp `json:"op"`
		From  string `json:"from,omitempty"`
		Path  string `json:"path"`
		Value any    `json:"value,omitempty"`
	}
	ops := make([]operation, 0, len(edits))
	for _, e := range edits {
		o := operation{Op: e.Op, Path: e.Path.Pointer()}
		switch e.Op {
		case EditAdd, EditReplace:
			o.Value = e.Value
		case EditMove:
			o.From = e.From.Pointer()
		case EditRemove:
		}
		ops = append(ops, o)
	}
	out, err := json.Marshal(ops)
	if err != nil {
		return nil, fmt.Errorf("writing %d edits as a JSON Patch: %w", len(edits), err)
	}
	return out, nil
}

// PatchJSON returns a JSON document with the edits applied in order. It fails if the document does not have what an
// edit changes.
func PatchJSON(doc []byte, edits []Edit) ([]byte, error) {
	text, err := JSONPatch(edits)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		return nil, fmt.Errorf("decoding %d edits as a JSON Patch: %w", len(edits), err)
	}
	out, err := patch.Apply(doc)
	if err != nil {
		return nil, fmt.Errorf("applying %d edits as a JSON Patch: %w", len(edits), err)
	}
	return out, nil
}

// PatchObject returns a copy of the object with the edits applied in order, as PatchJSON does.
func PatchObject(o *unstructured.Unstructured, edits []Edit) (*unstructured.Unstructured, error) {
	doc, err := o.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encoding %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	if doc, err = PatchJSON(doc, edits); err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{}
	return out, out.UnmarshalJSON(doc)
}
