package sourcetree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/flux-admission/flux-admission/validators"
)

// File is one regular file. Its content and its parsed form are read once, on first use.
type File struct {
	tree *Tree
	path string

	load sync.Once
	data []byte
	err  error // of reading, or a limitError

	parse  sync.Once
	parsed *Parsed

	sniff    sync.Once
	manifest bool // it is JSON with a Kubernetes object
}

// Path returns the path relative to the tree's root, with slashes.
func (f *File) Path() string { return f.path }

// Name returns the name of the file in positions.
func (f *File) Name() string { return f.tree.prefix + f.path }

// Position returns a position in the file; line and column count from 1, and 0 is unknown.
func (f *File) Position(line, column int) validators.Position {
	return validators.Position{File: f.Name(), Line: line, Column: column}
}

// Read returns the file's content, which must not be changed, or the reason why it was not read.
func (f *File) Read() ([]byte, error) {
	f.load.Do(func() { f.data, f.err = f.readOnce() })
	return f.data, f.err
}

func (f *File) readOnce() (_ []byte, err error) {
	if text, edited := f.tree.texts[f.path]; edited {
		return text, nil
	}
	// os.Root refuses to leave the tree, also when a file was replaced by a link since the tree was listed.
	h, err := f.tree.root.Open(filepath.FromSlash(f.path))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.path, err)
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	info, err := h.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, &limitError{"it is not a regular file"}
	}
	limit := f.tree.limits.FileBytes
	if info.Size() > limit {
		f.tree.exceeded.Store(true)
		return nil, tooLarge(limit)
	}
	if most := f.tree.limits.TreeBytes; f.tree.bytes.Add(info.Size()) > most && most > 0 {
		f.tree.exceeded.Store(true)
		return nil, &limitError{fmt.Sprintf("the files that were read are larger than %d bytes", most)}
	}
	data, err := io.ReadAll(io.LimitReader(h, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.path, err)
	}
	if int64(len(data)) > limit {
		return nil, tooLarge(limit)
	}
	return data, nil
}

// manifestStart matches the start of a manifest in JSON, so that one with a mistake in its text is still known as one.
var manifestStart = regexp.MustCompile(`^\s*\{\s*"(apiVersion|kind)"`)

// isJSONManifest reports whether the file is JSON with the keys of a Kubernetes object at its top. Dashboards, schemas and settings are not, and
// their text is not kept.
func (f *File) isJSONManifest() bool {
	if path.Ext(f.path) != ".json" {
		return false
	}
	f.sniff.Do(func() {
		data, err := f.readOnce()
		if err != nil || !bytes.Contains(data, []byte(`"apiVersion"`)) || !bytes.Contains(data, []byte(`"kind"`)) {
			return
		}
		var top struct {
			APIVersion, Kind string
		}
		err = json.Unmarshal(data, &top)
		if _, invalid := errors.AsType[*json.SyntaxError](err); invalid {
			f.manifest = manifestStart.Match(data) && !bytes.Contains(data, []byte("{{")) // not the input of a template
			return
		}
		f.manifest = err == nil && top.APIVersion != "" && top.Kind != ""
	})
	return f.manifest
}

// refusedFix is the fix of a file that was not read because of a limit.
const refusedFix = "Split the file, or remove what exceeds the limit."

func tooLarge(limit int64) error {
	return &limitError{fmt.Sprintf("it is larger than %d bytes", limit)}
}

// Content returns what a build may read: the bytes of the file, unless it is YAML that exceeds a limit.
func (f *File) Content() ([]byte, error) {
	data, err := f.Read()
	if err != nil {
		return nil, err
	}
	if IsYAML(f.path) || path.Base(f.path) == "Kustomization" { // files of other names that kustomize parses are checked before the build
		if p := f.Parse(); p.limit != nil {
			return nil, p.limit
		}
	}
	return data, nil
}

// Parse returns the parsed file. A file that cannot be read has no documents and a problem.
func (f *File) Parse() *Parsed {
	f.parse.Do(func() {
		data, err := f.Read()
		if err != nil {
			f.parsed = &Parsed{Problems: []*validators.Problem{{Kind: validators.ProblemFileRefused, Diagnostic: validators.Diagnostic{
				Position: f.Position(0, 0), Message: fmt.Sprintf("the file was not read: %v", err), Fix: refusedFix,
			}}}}
			if errors.Is(err, fs.ErrPermission) {
				f.parsed.Problems[0].Fix = "Make the file readable."
			}
			f.parsed.limit, _ = errors.AsType[*limitError](err)
			return
		}
		f.parsed = parse(data, f.Name(), f.tree.limits)
		if f.parsed.limit != nil {
			f.tree.exceeded.Store(true)
		}
	})
	return f.parsed
}
