// Package archive reads Helm charts from archives and directories that strangers wrote: bounded in entries, bytes and compression
// ratio, and confined to their own tree. It reads what values, schemas and the names of values need.
package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	helmarchive "helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/ignore"
)

// Limits bound what reading one chart, its subcharts included, may cost.
type Limits struct {
	// Entries is the number of files and directories.
	Entries int
	// Bytes is the size of everything after decompression, also of what is passed over.
	Bytes int64
	// Kept is the size of the files that are kept in memory.
	Kept int64
	// Ratio is how many bytes one compressed byte may become, once more than a megabyte was written.
	Ratio int64
	// Depth is how many subcharts may be nested in one another, and how deep directories may be.
	Depth int
	// Whole keeps all files of a chart, as rendering it needs. Otherwise only what values, schemas and the names of values need is kept.
	Whole bool
}

// DefaultLimits returns limits that every public chart known to the author keeps by a factor of ten.
func DefaultLimits() Limits {
	return Limits{Entries: 20_000, Bytes: 128 << 20, Kept: 32 << 20, Ratio: 200, Depth: 8}
}

// budget is what is left of the limits while one chart is read.
type budget struct {
	Limits
	entries     int
	bytes, kept int64
}

// SourceLimits returns the limits for the archive of a whole source, of which a chart is a part.
func SourceLimits() Limits {
	l := DefaultLimits()
	l.Entries, l.Bytes = 500_000, 1<<30
	return l
}

func (l Limits) budget() *budget {
	return &budget{Limits: l, entries: l.Entries, bytes: l.Bytes, kept: l.Kept}
}

func (b *budget) entry() error {
	if b.entries--; b.entries < 0 {
		return fmt.Errorf("the chart has more than %d files", b.Entries)
	}
	return nil
}

func (b *budget) keep(n int64) error {
	if b.kept -= n; b.kept < 0 {
		return fmt.Errorf("the files of the chart that are read have more than %d bytes", b.Kept)
	}
	return nil
}

// Read reads a packaged chart (.tgz). Beside Chart.yaml, values and schemas it keeps the files that extra names, by their path in the
// chart. The chart's Values of a file that is no YAML, links, devices and paths that lead outside are errors.
func Read(r io.Reader, limits Limits, extra ...string) (*chart.Chart, error) {
	b := limits.budget()
	files, err := b.unpack(r, "", extra, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the chart archive: %w", err)
	}
	return load(files)
}

// ReadArtifact reads a chart out of the archive of a whole source (.tar.gz, as source-controller serves Git repositories and buckets): the
// directory, or packaged chart, at the path. It returns beside the chart the files that extra names, by their path in the archive.
func ReadArtifact(r io.Reader, dir string, limits Limits, extra ...string) (*chart.Chart, map[string][]byte, error) {
	dir = path.Clean("/" + dir)[1:]
	b := limits.budget()
	files, others, err := b.pick(r, dir, extra)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the source's archive: %w", err)
	}
	if packaged, ok := others[dir]; ok && path.Ext(dir) == ".tgz" {
		if files, err = b.unpack(bytes.NewReader(packaged), "", nil, 1); err != nil {
			return nil, nil, fmt.Errorf("reading %s: %w", shown(dir), err)
		}
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("%w at %s of the source", ErrNoChart, shown(dir))
	}
	c, err := load(files)
	return c, others, err
}

// ErrNoChart is the error of a source that has no chart at the path.
var ErrNoChart = errors.New("there is no chart")

// pick reads the chart's files, and the others that extra names, of a source's archive.
func (b *budget) pick(r io.Reader, dir string, extra []string) ([]*helmarchive.BufferedFile, map[string][]byte, error) {
	tr, err := b.open(r)
	if err != nil {
		return nil, nil, err
	}
	wanted := map[string]bool{dir: path.Ext(dir) == ".tgz"}
	for _, e := range extra {
		wanted[path.Clean("/" + e)[1:]] = true
	}
	prefix := dir + "/"
	if dir == "" {
		prefix = ""
	}
	var files []*helmarchive.BufferedFile
	others := map[string][]byte{}
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			files, err = withoutIgnored(files)
			return files, others, err
		}
		if err != nil {
			return nil, nil, fmt.Errorf("it is not a tar file: %w", err)
		}
		if err := b.entry(); err != nil {
			return nil, nil, err
		}
		name := path.Clean(h.Name)
		below, inside := strings.CutPrefix(name, prefix)
		regular := h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeGNUSparse
		if h.Typeflag == tar.TypeDir || !wanted[name] && !(inside && (needed(below, nil) || b.Whole && regular)) {
			continue // links elsewhere in a repository are none of the chart's business
		}
		if !fs.ValidPath(name) || !regular {
			return nil, nil, fmt.Errorf("%s is a link, a device or outside of the source", shown(h.Name))
		}
		data, err := b.content(tr, h)
		if err != nil {
			return nil, nil, err
		}
		if wanted[name] {
			others[name] = data
		}
		if inside && b.keeps(below, nil) {
			if files, err = b.addFile(files, "", below, data, 0); err != nil {
				return nil, nil, err
			}
		}
	}
}

// withoutIgnored leaves out the files that the chart's .helmignore names: what is packaged does not have them.
func withoutIgnored(files []*helmarchive.BufferedFile) ([]*helmarchive.BufferedFile, error) {
	i := slices.IndexFunc(files, func(f *helmarchive.BufferedFile) bool { return f.Name == ignore.HelmIgnore })
	if i < 0 {
		return files, nil
	}
	rules, err := ignore.Parse(bytes.NewReader(files[i].Data))
	if err != nil {
		return nil, fmt.Errorf(".helmignore: %w", err)
	}
	rules.AddDefaults()
	return slices.DeleteFunc(files, func(f *helmarchive.BufferedFile) bool {
		if rules.Ignore(f.Name, (&tar.Header{Typeflag: tar.TypeReg, Name: f.Name}).FileInfo()) {
			return true
		}
		for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
			if rules.Ignore(dir, (&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/"}).FileInfo()) {
				return true
			}
		}
		return false
	}), nil
}

// content reads an entry, which may not be larger than what is left to be kept.
func (b *budget) content(tr *tar.Reader, h *tar.Header) ([]byte, error) {
	if h.Size > b.kept {
		return nil, fmt.Errorf("%s claims %d bytes, more than the %d that are left of the limit", shown(h.Name), h.Size, b.kept)
	}
	data, err := io.ReadAll(tr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown(h.Name), err)
	}
	return data, nil
}

// open opens a compressed archive, whose reading is bounded.
func (b *budget) open(r io.Reader) (*tar.Reader, error) {
	in := &countingReader{r: r}
	gz, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("it is not a gzip file: %w", err)
	}
	return tar.NewReader(&boundedReader{r: gz, in: in, b: b}), nil
}

// ReadFS reads a chart from the directory dir of a file system, as Read does. Files that .helmignore names are passed over, as Helm does.
func ReadFS(fsys fs.FS, dir string, limits Limits, extra ...string) (*chart.Chart, error) {
	b := limits.budget()
	files, err := b.walk(fsys, dir, extra)
	if err != nil {
		return nil, fmt.Errorf("reading the chart directory %s: %w", dir, err)
	}
	return load(files)
}

// ReadPath reads a chart from a directory or an archive of the local file system. Nothing outside of it is opened, whatever links it holds.
func ReadPath(name string, limits Limits, extra ...string) (*chart.Chart, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("reading a chart: %w", err)
	}
	if !info.IsDir() {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading a chart: %w", err)
		}
		c, err := Read(f, limits, extra...)
		return c, errors.Join(err, f.Close())
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("reading a chart: %w", err)
	}
	c, err := ReadFS(root.FS(), ".", limits, extra...)
	return c, errors.Join(err, root.Close())
}

// load makes a chart of its files. Helm's loader expects well-meant ones.
func load(files []*helmarchive.BufferedFile) (c *chart.Chart, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = nil, fmt.Errorf("the chart's files make Helm's loader panic: %v", r)
		}
	}()
	for _, f := range files {
		if own := inChart(f.Name); own != "Chart.yaml" && own != "values.yaml" && own != "requirements.yaml" {
			continue
		}
		if err := CheckYAML(f.Data); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	c, err = loader.LoadFiles(files)
	if err != nil {
		return nil, fmt.Errorf("reading the chart: %w", err)
	}
	strip(c)
	return c, checkTree(c)
}

// strip drops what the loader kept of a chart twice, or that nobody reads.
func strip(c *chart.Chart) {
	c.Raw = slices.DeleteFunc(c.Raw, func(f *common.File) bool { return f.Name != "values.yaml" })
	c.Lock = nil
	for _, d := range c.Dependencies() {
		strip(d)
	}
}

// inChart returns the path of a file in the chart or the subchart's directory that it belongs to.
func inChart(name string) string {
	for {
		sub, ok := strings.CutPrefix(name, "charts/")
		if !ok {
			return name
		}
		_, file, inDir := strings.Cut(sub, "/")
		if !inDir {
			return name
		}
		name = file
	}
}

// keeps tells whether a file of a chart is read, by its path in it.
func (b *budget) keeps(name string, extra []string) bool {
	return b.Whole || needed(name, extra)
}

// needed tells whether values, schemas and names need a file of a chart, by its path in it.
func needed(name string, extra []string) bool {
	own := inChart(name)
	switch own {
	case "Chart.yaml", "values.yaml", "values.schema.json", "requirements.yaml", ".helmignore":
		return true
	}
	if template(own) {
		return true
	}
	if sub, ok := strings.CutPrefix(own, "charts/"); ok {
		return path.Ext(sub) == ".tgz"
	}
	for _, e := range extra {
		if name == path.Clean(e) {
			return true
		}
	}
	return false
}

// template tells whether a file of a chart is one of its templates.
func template(name string) bool {
	if !strings.HasPrefix(name, "templates/") {
		return false
	}
	switch path.Ext(name) {
	case ".yaml", ".yml", ".tpl", ".txt":
		return true
	}
	return false
}

// unpack reads an archive; the names of its files start with prefix, which replaces the archive's own top directory.
func (b *budget) unpack(r io.Reader, prefix string, extra []string, depth int) ([]*helmarchive.BufferedFile, error) {
	if depth > b.Depth {
		return nil, fmt.Errorf("subcharts are nested deeper than %d", b.Depth)
	}
	tr, err := b.open(r)
	if err != nil {
		return nil, err
	}
	var files []*helmarchive.BufferedFile
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("it is not a tar file: %w", err)
		}
		if err := b.entry(); err != nil {
			return nil, err
		}
		name, err := member(h)
		if err != nil {
			return nil, err
		}
		if name == "" || !b.keeps(name, extra) {
			continue
		}
		data, err := b.content(tr, h)
		if err != nil {
			return nil, err
		}
		if files, err = b.addFile(files, prefix, name, data, depth); err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, errors.New("it holds no chart")
	}
	return files, nil
}

// addFile adds a file; an archived subchart is unpacked in its place, out of the same budget.
func (b *budget) addFile(files []*helmarchive.BufferedFile, prefix, name string, data []byte, depth int) ([]*helmarchive.BufferedFile, error) {
	if path.Ext(name) == ".tgz" && path.Dir(inChart(name)) == "charts" {
		sub, err := b.unpack(bytes.NewReader(data), prefix+strings.TrimSuffix(name, ".tgz")+"/", nil, depth+1)
		if err != nil {
			return nil, fmt.Errorf("subchart %s: %w", shown(name), err)
		}
		return append(files, sub...), nil
	}
	if err := b.keep(int64(len(data))); err != nil {
		return nil, err
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	return append(files, &helmarchive.BufferedFile{Name: prefix + name, Data: data}), nil
}

// member returns the path of an archive's entry below its top directory; "" for what is passed over.
func member(h *tar.Header) (string, error) {
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader, tar.TypeXHeader:
		return "", nil
	case tar.TypeReg, tar.TypeGNUSparse:
	default:
		return "", fmt.Errorf("%s is a link or a device, which no packaged chart holds", shown(h.Name))
	}
	name := strings.ReplaceAll(h.Name, `\`, "/")
	if path.IsAbs(name) || strings.Contains(name, "\x00") {
		return "", fmt.Errorf("%s is outside of the chart", shown(h.Name))
	}
	top, rest, ok := strings.Cut(name, "/")
	if !ok || top == ".." {
		return "", fmt.Errorf("%s is outside of the chart's directory", shown(h.Name))
	}
	rest = path.Clean(rest)
	if rest == "." || path.IsAbs(rest) || !fs.ValidPath(rest) {
		return "", fmt.Errorf("%s is outside of the chart's directory", shown(h.Name))
	}
	return rest, nil
}

// walk reads a directory.
func (b *budget) walk(fsys fs.FS, dir string, extra []string) ([]*helmarchive.BufferedFile, error) {
	rules, err := ignoreRules(fsys, dir)
	if err != nil {
		return nil, err
	}
	var files []*helmarchive.BufferedFile
	err = fs.WalkDir(fsys, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p, dir), "/")
		if dir == "." {
			name = p
		}
		if p == dir {
			return nil
		}
		if err := b.entry(); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if rules.Ignore(name, info) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			if strings.Count(name, "/") > 4*b.Depth {
				return fmt.Errorf("directories are nested deeper than %d", 4*b.Depth)
			}
			return nil
		}
		if !b.keeps(name, extra) {
			return nil
		}
		if !info.Mode().IsRegular() && !needed(name, extra) {
			// What a link leads to inside the chart is read as Helm would.
			if info, err = fs.Stat(fsys, p); err != nil || !info.Mode().IsRegular() {
				return nil //nolint:nilerr // only a template could miss it
			}
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is a link or a device; only regular files are read", shown(name))
		}
		if info.Size() > b.kept {
			return fmt.Errorf("%s has %d bytes, more than the %d that are left of the limit", shown(name), info.Size(), b.kept)
		}
		data, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		files, err = b.addFile(files, "", name, data, 0)
		return err
	})
	return files, err
}

func ignoreRules(fsys fs.FS, dir string) (*ignore.Rules, error) {
	rules := ignore.Empty()
	info, err := fs.Stat(fsys, path.Join(dir, ignore.HelmIgnore))
	if err == nil && info.Mode().IsRegular() && info.Size() < 1<<20 {
		data, err := fs.ReadFile(fsys, path.Join(dir, ignore.HelmIgnore))
		if err != nil {
			return nil, err
		}
		if rules, err = ignore.Parse(bytes.NewReader(data)); err != nil {
			return nil, fmt.Errorf(".helmignore: %w", err)
		}
	}
	rules.AddDefaults()
	return rules, nil
}

// countingReader counts what was read of the compressed input.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// boundedReader stops decompression at the limits.
type boundedReader struct {
	r   io.Reader
	in  *countingReader
	b   *budget
	out int64
}

func (l *boundedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.out += int64(n)
	l.b.bytes -= int64(n)
	if l.b.bytes < 0 {
		return 0, fmt.Errorf("the chart has more than %d bytes after decompression", l.b.Bytes)
	}
	if l.out > 1<<20 && l.out > l.b.Ratio*max(l.in.n, 1) {
		return 0, fmt.Errorf("the archive is compressed more than %d to 1, which no chart is", l.b.Ratio)
	}
	return n, err
}

func shown(name string) string {
	if len(name) > 120 {
		name = name[:120] + "..."
	}
	return fmt.Sprintf("%q", name)
}
