package validators

import "fmt"

// Position is a place in a file of a Git tree. The zero value is no place.
type Position struct {
	// File is relative to the tree's root, with slashes; in a file of a mapped source it is prefixed with "NAME:".
	File string `json:"file"`
	// Line and Column count from 1; 0 when only the file is known.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

// String returns file:line:column, as compilers write it, as far as it is known.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}
