package report

import (
	"encoding/json"
	"io"
)

// WriteJSON writes the report in the format that docs/schemas/report.schema.json describes, indented by two spaces.
func WriteJSON(w io.Writer, r *Report) error { return writeJSON(w, r) }

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
