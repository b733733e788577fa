package sourcetree

// Limits bound what is read from a tree. A zero field means its default.
type Limits struct {
	// FileBytes is the size above which a file is refused; default 8 MiB.
	FileBytes int64
	// TreeBytes is how much is read of all files together; 0 for no limit. Files beyond it are refused, see Tree.Exceeded.
	TreeBytes int64
	// Files is the number of files above which the whole tree is refused; default 200,000.
	Files int
	// Depth is how deeply the values of a YAML document may be nested; default 200.
	Depth int
	// Objects is how many objects one Kustomization may build; default 5,000. Kustomize compares each with all
	// others, and a base can be included many times.
	Objects int
	// Nodes is how many values a YAML file may have once its aliases are expanded; default 2,000,000.
	Nodes int
}

// WithDefaults returns the limits with defaults for zero fields.
func (l Limits) WithDefaults() Limits {
	if l.FileBytes == 0 {
		l.FileBytes = 8 << 20
	}
	if l.Files == 0 {
		l.Files = 200_000
	}
	if l.Depth == 0 {
		l.Depth = 200
	}
	if l.Objects == 0 {
		l.Objects = 5_000
	}
	if l.Nodes == 0 {
		l.Nodes = 2_000_000
	}
	return l
}

// limitError is the reason why a file that exceeds a limit is not read.
type limitError struct{ reason string }

// Error implements error.
func (e *limitError) Error() string { return e.reason }
