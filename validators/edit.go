package validators

import (
	"encoding/json"
	"fmt"
)

// JSONPatch returns the edits as a JSON Patch document (RFC 6902), in order. It fails when a value cannot be written as JSON.
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
