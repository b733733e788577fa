// Package archive reads Helm charts from untrusted archives and directories: with limits on entries, bytes and
// compression ratio, and without leaving the archive or directory. It keeps the files that values, schemas and the
// names of values need.
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

// Limits bound the cost of reading one chart with its subcharts.
type Limits struct {
	// Entries is the number of files and directories.
	Entries int
	// Bytes is the size of everything after decompression, including files that are skipped.
	Bytes int64
	// Kept is the size of the files that are kept in memory.
	Kept int64
	// Ratio is how many bytes one compressed byte may expand to, once more than a megabyte was decompressed.
	Ratio int64
	// Depth is how deep subcharts may be nested.
	Depth int
	// YAML is the size of the documents of the chart, its subcharts and values files together.
	YAML YAMLBudget
	// AllFiles keeps all files of a chart, which templating needs. Otherwise only the files are kept that values, schemas
	// and the names of values need.
	AllFiles bool
}

// DefaultLimits returns limits that are ten times what any known public chart needs.
func DefaultLimits() Limits {
	return Limits{
		Entries: 20_000, Bytes: 128 << 20, Kept: 32 << 20, Ratio: 200, Depth: 8,
		YAML: YAMLBudget{Bytes: maxYAMLBytes, Entries: maxYAMLEntries},
	}
}

// AdmissionLimits returns limits for a process with 256 MiB of memory. They are three times what any known public chart
// needs.
func AdmissionLimits() Limits {
	return Limits{
		Entries: 20_000, Bytes: 128 << 20, Kept: 12 << 20, Ratio: 200, Depth: 8,
		YAML: YAMLBudget{Bytes: 4 << 20, Entries: 100_000},
	}
}

// OfSource returns the limits for the archive of a whole source, of which a chart with these limits is a part.
func (l Limits) OfSource() Limits {
	l.Entries, l.Bytes = 500_000, 1<<30
	return l
}

// budget is what remains of the limits while one chart is read.
type budget struct {
	Limits
	entries     int
	bytes, kept int64
	yaml        YAMLBudget
}

func (l Limits) budget() *budget {
	return &budget{Limits: l, entries: l.Entries, bytes: l.Bytes, kept: l.Kept, yaml: l.YAML}
}

func (b *budget) entry() error {
	if b.entries--; b.entries < 0 {
		return fmt.Errorf("the chart has more than %d files", b.Entries)
	}
	return nil
}

func (b *budget) keep(n int64) error {
	if b.kept -= n; b.kept < 0 {
		return fmt.Errorf("the files that are read from the chart have more than %d bytes", b.Kept)
	}
	return nil
}

// Read reads a packaged chart (.tgz). It also keeps the files named by extra, by their path in the chart. Values that
// are not YAML, links, devices and paths that lead outside are errors.
func Read(r io.Reader, limits Limits, extra ...string) (*chart.Chart, error) {
	b := limits.budget()
	files, err := b.unpack(r, "", extra, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the chart archive: %w", err)
	}
	return b.load(files, extra)
}

// Artifact has the files of a chart in the archive of a source, which are not parsed yet.
type Artifact struct {
	b      *budget
	dir    string
	extra  []string
	files  []*helmarchive.BufferedFile
	others map[string][]byte
}

// OpenArtifact reads the files of a chart from the archive of a whole source (.tar.gz, as source-controller serves Git
// repositories and buckets): of the directory, or packaged chart, at a path, and the files named by extra, by their path
// in the archive. It keeps no more of the archive than these.
func OpenArtifact(r io.Reader, dir string, limits Limits, extra ...string) (*Artifact, error) {
	a := &Artifact{b: limits.budget(), dir: path.Clean("/" + dir)[1:], extra: extra}
	var err error
	if a.files, a.others, err = a.b.pick(r, a.dir, extra); err != nil {
		return nil, fmt.Errorf("reading the source's archive: %w", err)
	}
	return a, nil
}

// Chart parses the chart. It also returns the files named by extra, by their path in the archive.
func (a *Artifact) Chart() (*chart.Chart, map[string][]byte, error) {
	files := a.files
	if packaged, ok := a.others[a.dir]; ok && path.Ext(a.dir) == ".tgz" {
		var err error
		if files, err = a.b.unpack(bytes.NewReader(packaged), "", nil, 1); err != nil {
			return nil, nil, fmt.Errorf("reading %s: %w", quoted(a.dir), err)
		}
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("%w at %s of the source", ErrNoChart, quoted(a.dir))
	}
	for _, e := range a.extra {
		if data, ok := a.others[path.Clean("/" + e)[1:]]; ok {
			if err := a.b.yaml.Take(data); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", quoted(e), err)
			}
		}
	}
	c, err := a.b.load(files, nil)
	return c, a.others, err
}

// ErrNoChart is the error of a source that has no chart at the path.
var ErrNoChart = errors.New("there is no chart")

// pick reads the chart's files, and the other files named by extra, from a source's archive.
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
		if h.Typeflag == tar.TypeDir || !wanted[name] && !(inside && (needed(below, nil) || b.AllFiles && regular)) {
			continue // links elsewhere in a repository do not matter
		}
		if !fs.ValidPath(name) || !regular {
			return nil, nil, fmt.Errorf("%s is a link, a device or outside of the source", quoted(h.Name))
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

// withoutIgnored removes the files that the chart's .helmignore excludes from packaging.
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

// content reads an entry, within the limit of bytes to keep.
func (b *budget) content(tr *tar.Reader, h *tar.Header) ([]byte, error) {
	if h.Size > b.kept {
		return nil, fmt.Errorf("%s claims %d bytes, more than the %d left of the limit", quoted(h.Name), h.Size, b.kept)
	}
	data, err := io.ReadAll(tr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", quoted(h.Name), err)
	}
	return data, nil
}

// open opens a compressed archive and bounds reading from it.
func (b *budget) open(r io.Reader) (*tar.Reader, error) {
	in := &countingReader{r: r}
	gz, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("it is not a gzip file: %w", err)
	}
	return tar.NewReader(&boundedReader{r: gz, in: in, b: b}), nil
}

// ReadFS reads a chart from a directory of a file system, as Read does. Like Helm, it skips files that .helmignore
// excludes.
func ReadFS(fsys fs.FS, dir string, limits Limits, extra ...string) (*chart.Chart, error) {
	b := limits.budget()
	files, err := b.walk(fsys, dir, extra)
	if err != nil {
		return nil, fmt.Errorf("reading the chart directory %s: %w", dir, err)
	}
	return b.load(files, extra)
}

// ReadPath reads a chart from a directory or an archive of the local file system. It follows no links that lead
// outside.
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

// load parses a chart from its files, of which extra are values files. Helm's loader does not expect malicious ones.
func (b *budget) load(files []*helmarchive.BufferedFile, extra []string) (c *chart.Chart, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = nil, fmt.Errorf("reading the chart's files panicked: %v", r)
		}
	}()
	for _, f := range files {
		switch inChart(f.Name) {
		case "Chart.yaml", "Chart.lock", "values.yaml", "requirements.yaml", "requirements.lock":
		default:
			if !slices.ContainsFunc(extra, func(e string) bool { return path.Clean(e) == f.Name }) {
				continue
			}
		}
		if err := b.yaml.Take(f.Data); err != nil {
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

// strip drops what the loader keeps twice, or what is not needed.
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

// keeps reports whether a file is kept, by its path in the chart.
func (b *budget) keeps(name string, extra []string) bool {
	return b.AllFiles || needed(name, extra)
}

// needed reports whether values, schemas and the names of values need a file, by its path in the chart.
func needed(name string, extra []string) bool {
	own := inChart(name)
	switch own {
	case "Chart.yaml", "values.yaml", "values.schema.json", "requirements.yaml", ".helmignore":
		return true
	}
	if isTemplate(own) {
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

// isTemplate reports whether a file of a chart is one of its templates.
func isTemplate(name string) bool {
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
		return nil, errors.New("it contains no chart")
	}
	return files, nil
}

// addFile adds a file; an archived subchart is unpacked within the same budget.
func (b *budget) addFile(
	files []*helmarchive.BufferedFile, prefix, name string, data []byte, depth int,
) ([]*helmarchive.BufferedFile, error) {
	if path.Ext(name) == ".tgz" && path.Dir(inChart(name)) == "charts" {
		sub, err := b.unpack(bytes.NewReader(data), prefix+strings.TrimSuffix(name, ".tgz")+"/", nil, depth+1)
		if err != nil {
			return nil, fmt.Errorf("subchart %s: %w", quoted(name), err)
		}
		return append(files, sub...), nil
	}
	if err := b.keep(int64(len(data))); err != nil {
		return nil, err
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	return append(files, &helmarchive.BufferedFile{Name: prefix + name, Data: data}), nil
}

// member returns the path of an archive's entry below its top directory; "" for an entry to skip.
func member(h *tar.Header) (string, error) {
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader, tar.TypeXHeader:
		return "", nil
	case tar.TypeReg, tar.TypeGNUSparse:
	default:
		return "", fmt.Errorf("%s is a link or a device, which a packaged chart cannot contain", quoted(h.Name))
	}
	name := strings.ReplaceAll(h.Name, `\`, "/")
	if path.IsAbs(name) || strings.Contains(name, "\x00") {
		return "", fmt.Errorf("%s is outside of the chart", quoted(h.Name))
	}
	top, rest, ok := strings.Cut(name, "/")
	if !ok || top == ".." {
		return "", fmt.Errorf("%s is outside of the chart's directory", quoted(h.Name))
	}
	rest = path.Clean(rest)
	if rest == "." || path.IsAbs(rest) || !fs.ValidPath(rest) {
		return "", fmt.Errorf("%s is outside of the chart's directory", quoted(h.Name))
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
			// Like Helm, read what a link inside the chart leads to.
			if info, err = fs.Stat(fsys, p); err != nil || !info.Mode().IsRegular() {
				return nil //nolint:nilerr // only a template could need it
			}
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is a link or a device; only regular files are read", quoted(name))
		}
		if info.Size() > b.kept {
			return fmt.Errorf("%s has %d bytes, more than the %d left of the limit", quoted(name), info.Size(), b.kept)
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

// countingReader counts the bytes read from the compressed input.
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
		return 0, fmt.Errorf("the archive is compressed more than %d to 1", l.b.Ratio)
	}
	return n, err
}

// quoted returns a name for a message.
func quoted(name string) string {
	if len(name) > 120 {
		name = name[:120] + "..."
	}
	return fmt.Sprintf("%q", name)
}
