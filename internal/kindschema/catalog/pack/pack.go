// Package pack makes the built-in CRD catalog from the Go modules that ship CustomResourceDefinitions, or the Go types of them.
package pack

import (
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
)

const (
	// indexName is the file that lists the definitions.
	indexName = "index.json"
	// maxFile limits the size of a file that is read from a module.
	maxFile = 32 << 20
)

// Write brings the catalog in a directory up to date. A source whose definitions are there already, unchanged, is not read again unless
// all is set: sources are pinned to versions, and what the module proxy serves for a version never changes.
func Write(ctx context.Context, dir string, all bool) error {
	old, err := readIndex(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p := &packing{defs: map[string][]byte{}}
	for _, s := range sources() {
		if known := old.of(s); !all && len(known) > 0 && verify(dir, known) == nil {
			p.keep(known)
			continue
		}
		if err := p.read(ctx, s); err != nil {
			return fmt.Errorf("%s %s: %w", s.project, s.version, err)
		}
	}
	return p.write(dir)
}

// Verify reports whether the catalog in a directory is what its sources say: every source is in the index with its pinned version, every
// file has its checksum, and there is no other file. It needs no network.
func Verify(dir string) error {
	index, err := readIndex(dir)
	if err != nil {
		return err
	}
	var errs []error
	expected := map[string]bool{indexName: true}
	count := 0
	for _, s := range sources() {
		entries := index.of(s)
		if len(entries) == 0 {
			errs = append(errs, fmt.Errorf("%s %s is not in the index", s.project, s.version))
		}
		for _, e := range entries {
			expected[e.File] = true
		}
		count += len(entries)
		errs = append(errs, verify(dir, entries))
	}
	if count != len(index.Entries) {
		errs = append(errs, fmt.Errorf("the index has %d entries, %d of them of a source", len(index.Entries), count))
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if !expected[f.Name()] {
			errs = append(errs, fmt.Errorf("%s belongs to no source", f.Name()))
		}
	}
	return errors.Join(errs...)
}

type index struct{ catalog.Index }

func readIndex(dir string) (index, error) {
	var i index
	data, err := os.ReadFile(filepath.Join(dir, indexName))
	if err != nil {
		return i, fmt.Errorf("reading the index of the CRD catalog: %w", err)
	}
	if err := json.Unmarshal(data, &i); err != nil {
		return i, fmt.Errorf("reading the index of the CRD catalog: %w", err)
	}
	return i, nil
}

// of returns the entries of a source, if the index was made from the same pin.
func (i index) of(s source) []catalog.Entry {
	var out []catalog.Entry
	for _, e := range i.Entries {
		if e.Project == s.project && e.Version == s.version && e.Module == s.module && e.ModuleVersion == s.moduleVersion && e.ThirdParty == s.thirdParty {
			out = append(out, e)
		}
	}
	return out
}

// verify reports whether the files of the entries are there and have their checksums.
func verify(dir string, entries []catalog.Entry) error {
	for _, e := range entries {
		data, err := unpack(filepath.Join(dir, e.File))
		if err != nil {
			return err
		}
		if sum := checksum(data); sum != e.SHA256 {
			return fmt.Errorf("%s has the checksum %s, and the index states %s", e.File, sum, e.SHA256)
		}
	}
	return nil
}

// packing is the catalog that is being made.
type packing struct {
	entries []catalog.Entry
	// defs are the definitions by file name, as JSON without descriptions; those that are kept are missing.
	defs map[string][]byte
}

func (p *packing) keep(entries []catalog.Entry) { p.entries = append(p.entries, entries...) }

// read adds the definitions of a source.
func (p *packing) read(ctx context.Context, s source) error {
	module, err := download(ctx, s.module, s.moduleVersion)
	if err != nil {
		return err
	}
	var texts map[string][]byte
	if len(s.types) > 0 {
		texts, err = generate(ctx, s, module)
	} else {
		texts, err = s.open(module)
	}
	if err != nil {
		return err
	}
	found := 0
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		for doc := range bytes.SplitSeq(texts[name], []byte("\n---")) {
			e, data, err := definition(doc)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if data == nil {
				continue
			}
			e.Project, e.Version, e.Module, e.ModuleVersion, e.ThirdParty = s.project, s.version, s.module, s.moduleVersion, s.thirdParty
			e.Date = module.date
			p.add(e, data)
			found++
		}
	}
	if found == 0 {
		return errors.New("it ships no CustomResourceDefinition where one is expected")
	}
	return nil
}

// add names the file of a definition by its content: releases that have the same definition share a file.
func (p *packing) add(e catalog.Entry, data []byte) {
	e.SHA256 = checksum(data)
	e.File = fmt.Sprintf("%s_%s_%s.json.gz", e.Group, strings.ToLower(e.Kind), e.SHA256[:8])
	p.entries = append(p.entries, e)
	p.defs[e.File] = data
}

func (p *packing) write(dir string) error {
	order := map[string]int{}
	for i, s := range sources() {
		order[s.project+" "+s.version] = i
	}
	slices.SortFunc(p.entries, func(a, b catalog.Entry) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind), cmp.Compare(order[a.Project+" "+a.Version], order[b.Project+" "+b.Version]))
	})
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	files := map[string]bool{indexName: true}
	for _, e := range p.entries {
		files[e.File] = true
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range old {
		if !files[f.Name()] {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return err
			}
		}
	}
	for name, data := range p.defs {
		target := filepath.Join(dir, name)
		// The compressed bytes differ with the release of Go. A file with the same content is left alone.
		if have, err := unpack(target); err == nil && bytes.Equal(have, data) {
			continue
		}
		packed, err := compress(data)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(target, packed, 0o644); err != nil {
			return err
		}
	}
	list, err := json.MarshalIndent(catalog.Index{Entries: p.entries}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, indexName), append(list, '\n'), 0o644)
}

// open reads the files of a source from its module.
func (s source) open(m module) (map[string][]byte, error) {
	z, err := zip.OpenReader(m.zip)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	matches := func(patterns []string, name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			ok, _ := path.Match(p, name)
			return ok
		})
	}
	out := map[string][]byte{}
	for _, f := range z.File {
		name := strings.TrimPrefix(f.Name, m.path+"@"+m.version+"/")
		if !matches(s.files, name) || matches(s.skip, name) {
			continue
		}
		data, err := readZipped(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = data
	}
	return out, nil
}

func readZipped(f *zip.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxFile))
}

// definition reads one document; it returns no data for one that is no CustomResourceDefinition.
func definition(text []byte) (catalog.Entry, []byte, error) {
	if !bytes.Contains(text, []byte("CustomResourceDefinition")) {
		return catalog.Entry{}, nil, nil
	}
	var o map[string]any
	if err := yaml.Unmarshal(text, &o); err != nil {
		return catalog.Entry{}, nil, err
	}
	if o["kind"] != "CustomResourceDefinition" {
		return catalog.Entry{}, nil, nil
	}
	spec, _ := o["spec"].(map[string]any)
	names, _ := spec["names"].(map[string]any)
	group, _ := spec["group"].(string)
	kind, _ := names["kind"].(string)
	if group == "" || kind == "" {
		return catalog.Entry{}, nil, errors.New("a CustomResourceDefinition without a group or a kind")
	}
	o["metadata"] = map[string]any{"name": fmt.Sprintf("%v.%s", names["plural"], group)}
	delete(o, "status")
	delete(spec, "conversion")
	versions, _ := spec["versions"].([]any)
	for _, v := range versions {
		version, _ := v.(map[string]any)
		// What kubectl prints of an object is of no use here.
		delete(version, "additionalPrinterColumns")
		if s, ok := version["schema"].(map[string]any); ok {
			dropDescriptions(s["openAPIV3Schema"])
		}
	}
	data, err := json.Marshal(o)
	return catalog.Entry{Group: group, Kind: kind}, data, err
}

// dropDescriptions removes the texts from a schema; they are most of its size. Below properties the keys are names of fields.
func dropDescriptions(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		if _, isText := s["description"].(string); isText {
			delete(s, "description")
		}
		for k, v := range s {
			switch k {
			case "properties":
				fields, _ := v.(map[string]any)
				for _, f := range fields {
					dropDescriptions(f)
				}
			case "default", "enum", "example":
				// Values, not schemas.
			default:
				dropDescriptions(v)
			}
		}
	case []any:
		for _, v := range s {
			dropDescriptions(v)
		}
	}
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func unpack(name string) ([]byte, error) {
	packed, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return io.ReadAll(io.LimitReader(r, maxFile))
}
