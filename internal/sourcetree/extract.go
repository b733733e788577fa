package sourcetree

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Limits on what is read from the archives of one artifact; source-watcher's own is 100 MiB an archive.
const (
	maxExtracted        = 32 << 20
	maxExtractedEntries = 20_000
)

// extract puts the content of the archives that a pattern names into the artifact.
func (c *composer) extract(source *Artifact, op CopyOperation, pattern, to string) error {
	if !isPattern(pattern) {
		from := path.Clean(pattern)
		switch {
		case source.IsDir(from):
			return fmt.Errorf("%s is a directory, not an archive", from)
		case source.File(from) == nil:
			return fmt.Errorf("%s does not exist", from)
		case excluded(from, ".", op.Exclude):
			return nil
		case !isArchive(from):
			return fmt.Errorf("%s is no archive: its name must end with .tar.gz or .tgz", from)
		}
		return c.extractFile(source.File(from), to)
	}
	// Unlike for the other strategies two stars match a slash here.
	if !doublestar.ValidatePattern(pattern) {
		return fmt.Errorf("the pattern %q is invalid", pattern)
	}
	matches := source.matching(func(p string) bool { return doublestar.MatchUnvalidated(pattern, p) })
	base := selectionRoot(pattern)
	matches = slices.DeleteFunc(matches, func(m string) bool { return excluded(m, base, op.Exclude) })
	if len(matches) == 0 {
		return errNoMatch
	}
	for _, m := range matches {
		if f := source.File(m); f != nil && isArchive(m) {
			if err := c.extractFile(f, to); err != nil {
				return err
			}
		}
	}
	return nil
}

func isArchive(p string) bool {
	p = strings.ToLower(p)
	return strings.HasSuffix(p, ".tar.gz") || strings.HasSuffix(p, ".tgz")
}

// extractFile puts the content of an archive into a directory of the artifact. It refuses what fluxcd/pkg/tar refuses: names that leave the directory,
// links and special files. A file has the name of the archive, a slash and its own name there.
func (c *composer) extractFile(f *File, to string) error {
	data, err := f.Read()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrExtract, err)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("reading the archive %s: %w", f.path, err)
	}
	c.mkdir(Rel(to))
	archive := tar.NewReader(unzipped)
	for ; c.entries < maxExtractedEntries; c.entries++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the archive %s: %w", f.path, err)
		}
		name := header.Name
		if name == "" || strings.Contains(name, `\`) || strings.HasPrefix(name, "/") || strings.Contains(name, "../") {
			return fmt.Errorf("the archive %s has an entry with the invalid name %q", f.path, name)
		}
		mode := header.FileInfo().Mode()
		switch {
		case mode.IsDir():
			c.mkdir(Rel(path.Join(to, name)))
			continue
		case !mode.IsRegular():
			return fmt.Errorf("the entry %s of the archive %s is not a regular file", name, f.path)
		}
		content, err := io.ReadAll(io.LimitReader(archive, maxExtracted-c.bytes+1))
		if err != nil {
			return fmt.Errorf("reading the archive %s: %w", f.path, err)
		}
		if c.bytes += int64(len(content)); c.bytes > maxExtracted {
			return fmt.Errorf("%w: %s and the archives before it have more than %d bytes", ErrExtract, f.path, maxExtracted)
		}
		out := &File{tree: f.tree, path: path.Join(f.path, name)}
		out.load.Do(func() { out.data = content })
		c.put(Rel(path.Join(to, name)), out)
	}
	return fmt.Errorf("%w: %s and the archives before it have more than %d entries", ErrExtract, f.path, maxExtractedEntries)
}
