package sourcetree

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// WriteArchive writes the files of the artifact that include returns true for, by their path, as the archive (.tar.gz) in which
// source-controller serves an artifact.
func (a *Artifact) WriteArchive(w io.Writer, include func(p string) bool) (err error) {
	gz, err := gzip.NewWriterLevel(w, gzip.NoCompression)
	if err != nil {
		return fmt.Errorf("writing an archive: %w", err)
	}
	tw := tar.NewWriter(gz)
	defer func() { err = errors.Join(err, tw.Close(), gz.Close()) }()
	for _, p := range a.Paths() {
		if !include(p) {
			continue
		}
		data, err := a.File(p).Read()
		if err != nil {
			return fmt.Errorf("reading %s: %w", p, err)
		}
		if err := tw.WriteHeader(&tar.Header{Name: p, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			return fmt.Errorf("writing an archive: %w", err)
		}
		if _, err := tw.Write(data); err != nil {
			return fmt.Errorf("writing an archive: %w", err)
		}
	}
	return nil
}
