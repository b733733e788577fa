package baseline

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/flux-admission/flux-admission/internal/report"
)

// ReadFile reads a baseline file.
func ReadFile(name string) (*Baseline, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist; create it with --write-baseline %s", name, name)
	}
	if err != nil {
		return nil, err
	}
	return Parse(name, data)
}

// WriteFile writes findings as a baseline. The reasons of entries are those of old; if old is nil, those of the file
// that is being replaced.
func WriteFile(name string, old *Baseline, r *report.Report) error {
	if old == nil {
		if _, err := os.Stat(name); err == nil {
			if old, err = ReadFile(name); err != nil {
				return err
			}
		}
	}
	var text bytes.Buffer
	if err := Of(r, old).Write(&text); err != nil {
		return err
	}
	return os.WriteFile(name, text.Bytes(), 0o644) //nolint:gosec // a file of the repository, readable by everybody
}
