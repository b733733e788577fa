package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/flux-admission/flux-admission/internal/check/baseline"
	"github.com/flux-admission/flux-admission/internal/report"
)

// readBaseline reads a baseline file; nil for no name.
func readBaseline(name string) (*baseline.Baseline, error) {
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--baseline: %s does not exist; make it with --write-baseline %s", name, name)
	}
	if err != nil {
		return nil, fmt.Errorf("--baseline: %w", err)
	}
	b, err := baseline.Parse(name, data)
	if err != nil {
		return nil, fmt.Errorf("--baseline: %w", err)
	}
	return b, nil
}

// writeBaseline writes the report's findings as a baseline, with the reasons of old, or of the file that is there.
func writeBaseline(name string, old *baseline.Baseline, r *report.Report, say io.Writer) error {
	if old == nil {
		if _, err := os.Stat(name); err == nil {
			if old, err = readBaseline(name); err != nil {
				return err
			}
		}
	}
	var text bytes.Buffer
	b := baseline.Of(r.Findings, old)
	if err := b.Write(&text); err != nil {
		return fmt.Errorf("--write-baseline: %w", err)
	}
	if err := os.WriteFile(name, text.Bytes(), 0o644); err != nil { //nolint:gosec // a file of the repository, for everybody to read
		return fmt.Errorf("--write-baseline: %w", err)
	}
	_, err := fmt.Fprintf(say, "wrote %d findings to %s\n", r.Summary.Findings, name)
	return err
}
