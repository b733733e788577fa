package repository

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	helmrepo "helm.sh/helm/v4/pkg/repo/v1"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
)

// Version is one version of a chart in an index.
type Version struct {
	Version string
	// URL is where the archive is, absolute or relative to the repository.
	URL string
	// Digest is the SHA-256 of the archive in hex; empty when the index has none.
	Digest  string
	Created time.Time
}

// memory estimates the memory of a version, in bytes.
func (v *Version) memory() int64 {
	return int64(len(v.Version)+len(v.URL)+len(v.Digest)) + 128
}

// Index is the index of a repository, or the part of it that has one chart. It is immutable.
type Index struct {
	entries map[string][]Version
	// only is the chart that the index was read for, if the others are missing.
	only    string
	partial bool
	memory  int64
}

// Covers reports whether the index has the versions of a chart, if there are any in the repository.
func (x *Index) Covers(chart string) bool { return !x.partial || x.only == chart }

// Partial reports whether the index has the versions of one chart only.
func (x *Index) Partial() bool { return x.partial }

// Memory estimates the memory of the index, in bytes.
func (x *Index) Memory() int64 { return x.memory }

// IndexLimits bound the memory of reading an index, in bytes.
type IndexLimits struct {
	// Kept bounds what is kept of an index: of all charts if they are within it, else of one.
	Kept int64
	// Whole bounds an index that has to be decoded as a whole, because it is not written in the way of Helm's own. That
	// takes up to 40 times its size.
	Whole int64
	// item bounds one version of a chart, in the source.
	item int
}

// AdmissionIndexLimits are limits for a process with 256 MiB of memory.
func AdmissionIndexLimits() IndexLimits {
	return IndexLimits{Kept: 4 << 20, Whole: 1 << 20, item: 1 << 20}
}

// DefaultIndexLimits are limits for a process that reads the charts of its own user.
func DefaultIndexLimits() IndexLimits {
	return IndexLimits{Kept: 32 << 20, Whole: MaxIndexBytes, item: 8 << 20}
}

// ReadIndex reads an index.yaml, in YAML or JSON, one version of a chart after the other. It keeps what selecting a chart
// needs: of all charts, or only of the named one when the limits do not allow more.
//
// YAML is cut into the items of the lists of versions by its lines, as Helm writes it: every chart is a key of its own
// line, and every version an item of a list in block style. Each item is parsed. An index that is written in another way
// (flow style, anchors) is decoded as a whole, within the limits.
func ReadIndex(r io.Reader, chart string, limits IndexLimits) (*Index, error) {
	seen := &prefix{r: r, limit: limits.Whole}
	in := bufio.NewReaderSize(seen, 64<<10)
	b := newIndexBuilder(chart, limits)
	head, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if start := bytes.TrimSpace(bytes.TrimPrefix(head, bom)); len(start) > 0 && start[0] == '{' {
		err = b.readJSON(in)
	} else {
		err = b.readYAML(in)
	}
	if errors.Is(err, errOtherStyle) {
		return readWhole(seen, chart, limits)
	}
	if err != nil {
		return nil, err
	}
	return b.index()
}

var bom = []byte("\xef\xbb\xbf")

// The errors of reading an index.
var (
	errNotIndex = errors.New("the repository's index is not a YAML index of Helm")
	// errOtherStyle means that only decoding the whole index shows what it contains.
	errOtherStyle = errors.New("the index is not written in the way of Helm's own")
)

// prefix reads from a reader, and keeps the first bytes.
type prefix struct {
	r     io.Reader
	limit int64
	kept  []byte
	n     int64
	err   error
}

// Read implements io.Reader.
func (p *prefix) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	if p.n > p.limit {
		p.kept = nil
	} else {
		p.kept = append(p.kept, b[:n]...)
	}
	if err != nil {
		p.err = err
	}
	return n, err
}

// readWhole decodes an index of which a part was read.
func readWhole(seen *prefix, chart string, limits IndexLimits) (*Index, error) {
	tooLong := fmt.Errorf("the repository's index is invalid, or has more than %d bytes in another style than Helm's", limits.Whole)
	if seen.n > limits.Whole {
		return nil, tooLong
	}
	data := seen.kept
	if seen.err == nil {
		rest, err := io.ReadAll(io.LimitReader(seen.r, limits.Whole-seen.n+1))
		if err != nil {
			return nil, err
		}
		data = append(data, rest...)
	} else if !errors.Is(seen.err, io.EOF) {
		return nil, seen.err
	}
	if int64(len(data)) > limits.Whole {
		return nil, tooLong
	}
	budget := archive.YAMLBudget{Bytes: 4 * limits.Whole, Entries: limits.Whole / 8}
	if err := budget.Take(data); err != nil {
		return nil, fmt.Errorf("the repository's index cannot be decoded: %w", err)
	}
	var file helmrepo.IndexFile
	if err := yaml.Unmarshal(data, &file); err != nil {
		return nil, errNotIndex
	}
	b := newIndexBuilder(chart, limits)
	b.apiVersion = file.APIVersion
	for name, versions := range file.Entries {
		b.chart(name)
		for _, v := range versions {
			b.add(v)
		}
	}
	return b.index()
}

// indexBuilder collects the versions of an index.
type indexBuilder struct {
	limits     IndexLimits
	wanted     string
	apiVersion string
	entries    map[string][]Version
	partial    bool
	memory     int64
	current    string
	keep       bool
}

func newIndexBuilder(wanted string, limits IndexLimits) *indexBuilder {
	return &indexBuilder{wanted: wanted, limits: limits, entries: map[string][]Version{}}
}

// chart begins the versions of a chart. They replace former ones of the same name.
func (b *indexBuilder) chart(name string) {
	for i := range b.entries[name] {
		b.memory -= b.entries[name][i].memory()
	}
	delete(b.entries, name)
	b.current, b.keep = name, !b.partial || name == b.wanted
}

// add adds a version of the current chart.
func (b *indexBuilder) add(v *helmrepo.ChartVersion) {
	if v == nil || v.Metadata == nil || !b.keep {
		return
	}
	out := Version{Version: v.Version, Digest: strings.ToLower(strings.TrimPrefix(v.Digest, "sha256:")), Created: v.Created}
	if len(v.URLs) > 0 {
		out.URL = v.URLs[0] // as source-controller does
	}
	if len(b.entries[b.current]) == 0 {
		b.memory += int64(len(b.current)) + 128
	}
	b.entries[b.current] = append(b.entries[b.current], out)
	if b.memory += out.memory(); b.memory > b.limits.Kept && !b.partial {
		b.partial = true
		mine := b.entries[b.wanted]
		b.entries, b.memory = map[string][]Version{}, 128
		for i := range mine {
			b.memory += mine[i].memory()
		}
		if mine != nil {
			b.entries[b.wanted] = mine
		}
		b.keep = b.current == b.wanted
	}
}

func (b *indexBuilder) index() (*Index, error) {
	if b.apiVersion == "" {
		return nil, errors.New("the repository's index has no apiVersion")
	}
	if b.memory > b.limits.Kept {
		return nil, fmt.Errorf("the repository's index has more than %d bytes of versions of chart %q", b.limits.Kept, b.wanted)
	}
	return &Index{entries: b.entries, only: b.wanted, partial: b.partial, memory: b.memory}, nil
}

// readJSON reads an index in JSON, token by token.
func (b *indexBuilder) readJSON(in *bufio.Reader) error {
	if start, _ := in.Peek(len(bom)); bytes.Equal(start, bom) {
		return errOtherStyle // no JSON; YAML allows it
	}
	limited := &itemReader{r: in, limit: b.limits.item}
	dec := json.NewDecoder(limited)
	// Text that is no JSON may be YAML in flow style.
	other := func(err error) error {
		_, wrongType := errors.AsType[*json.UnmarshalTypeError](err)
		if _, wrongTime := errors.AsType[*time.ParseError](err); wrongType || wrongTime {
			return errNotIndex
		}
		if _, ok := errors.AsType[*json.SyntaxError](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errOtherStyle
		}
		return err
	}
	if _, err := dec.Token(); err != nil {
		return other(err)
	}
	for dec.More() {
		limited.reset()
		key, err := dec.Token()
		if err != nil {
			return other(err)
		}
		switch name, _ := key.(string); {
		case strings.EqualFold(name, "apiVersion"): // as encoding/json matches names
			if err := dec.Decode(&b.apiVersion); err != nil {
				return other(err)
			}
		case strings.EqualFold(name, "entries"):
			if err := b.readEntriesJSON(dec, limited); err != nil {
				return other(err)
			}
		default:
			if err := skipJSON(dec, limited); err != nil {
				return other(err)
			}
		}
	}
	if _, err := dec.Token(); err != nil {
		return other(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errOtherStyle
	}
	return nil
}

func (b *indexBuilder) readEntriesJSON(dec *json.Decoder, limited *itemReader) error {
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		if err == nil && open != nil {
			err = errNotIndex
		}
		return err
	}
	for dec.More() {
		limited.reset()
		name, err := dec.Token()
		if err != nil {
			return err
		}
		b.chart(name.(string))
		open, err := dec.Token()
		if err != nil {
			return err
		}
		if open == nil {
			continue
		}
		if open != json.Delim('[') {
			return errNotIndex
		}
		for dec.More() {
			limited.reset()
			var v *helmrepo.ChartVersion
			if err := dec.Decode(&v); err != nil {
				return err
			}
			b.add(v)
		}
		if _, err := dec.Token(); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

// skipJSON reads a value without keeping it.
func skipJSON(dec *json.Decoder, limited *itemReader) error {
	depth := 0
	for {
		limited.reset()
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// itemReader bounds what a decoder reads, and keeps, for one item.
type itemReader struct {
	r     io.Reader
	limit int
	n     int
}

func (r *itemReader) reset() { r.n = 0 }

// Read implements io.Reader.
func (r *itemReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.n += n; r.n > r.limit {
		return 0, fmt.Errorf("one version in the repository's index has more than %d bytes", r.limit)
	}
	return n, err
}

// yamlIndex reads the lines of an index.
type yamlIndex struct {
	*indexBuilder
	// head is the index without its entries.
	head []byte
	// item is the text of the current item; nil when there is none.
	item []byte
	// entries means that the line is in the entries, which were found once.
	entries, found bool
	// names and items are the indents of the charts and of the current chart's items; -1 before the first.
	names, items int
}

// readYAML reads an index in YAML, line by line.
func (b *indexBuilder) readYAML(in *bufio.Reader) error {
	y := &yamlIndex{indexBuilder: b, names: -1, items: -1}
	for first := true; ; first = false {
		line, err := readLine(in, b.limits.item)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if first {
			line = bytes.TrimPrefix(line, bom)
		}
		if len(line) > 0 {
			if err := y.line(line); err != nil {
				return err
			}
		}
		if err != nil {
			break
		}
	}
	if err := y.endItem(); err != nil {
		return err
	}
	budget := archive.YAMLBudget{Bytes: int64(b.limits.item), Entries: int64(b.limits.item) / 16}
	if err := budget.Take(y.head); err != nil {
		return fmt.Errorf("the repository's index: %w", err)
	}
	var head helmrepo.IndexFile
	if err := yaml.Unmarshal(y.head, &head); err != nil || head.Entries != nil {
		return errOtherStyle // it may refer to the entries, or have them by another spelling
	}
	b.apiVersion = head.APIVersion
	return nil
}

// readLine reads a line with its end.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > limit {
			return nil, fmt.Errorf("a line of the repository's index has more than %d bytes", limit)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// line reads one line.
func (y *yamlIndex) line(line []byte) error {
	text := bytes.TrimRight(line, "\r\n")
	if bytes.IndexByte(text, '\r') >= 0 || bytes.IndexByte(text, 0) >= 0 {
		return errOtherStyle // another end of lines or encoding
	}
	content := bytes.TrimLeft(text, " ")
	indent := len(text) - len(content)
	blank := len(bytes.TrimLeft(content, " \t")) == 0 || content[0] == '#'
	if !blank && content[0] == '\t' {
		return errOtherStyle
	}
	if y.item != nil && (blank || indent > y.items) {
		return y.append(&y.item, line)
	}
	if blank {
		return nil
	}
	if indent == 0 {
		return y.top(line, content)
	}
	if !y.entries {
		return y.append(&y.head, line) // below another key
	}
	return y.entry(line, content, indent)
}

// top reads a line that is not indented.
func (y *yamlIndex) top(line, content []byte) error {
	if err := y.endItem(); err != nil {
		return err
	}
	y.entries = false
	switch key, rest, ok := bytes.Cut(content, []byte(":")); {
	case bytes.HasPrefix(content, []byte("---")):
		if len(y.head) > 0 || y.found || len(bytes.TrimSpace(content[3:])) > 0 {
			return errOtherStyle // several documents
		}
		return nil
	case content[0] == '%', content[0] == '"', content[0] == '\'', content[0] == '?', bytes.HasPrefix(content, []byte("...")), isItem(content):
		return errOtherStyle
	case ok && string(bytes.TrimSpace(key)) == "entries":
		if !empty(rest) || y.found {
			return errOtherStyle
		}
		y.entries, y.found = true, true
		return nil
	}
	return y.append(&y.head, line)
}

// entry reads a line of the entries that does not continue an item.
func (y *yamlIndex) entry(line, content []byte, indent int) error {
	if y.names < 0 {
		y.names = indent
	}
	switch {
	case indent == y.names && !isItem(content):
		if err := y.endItem(); err != nil {
			return err
		}
		return y.name(content)
	case !isItem(content) || y.current == "" || indent < y.names:
		return errOtherStyle
	case y.items < 0:
		y.items = indent
	case indent != y.items:
		return errOtherStyle
	}
	if err := y.endItem(); err != nil {
		return err
	}
	y.item = []byte{}
	return y.append(&y.item, line)
}

// name reads the key of a chart.
func (y *yamlIndex) name(content []byte) error {
	text := bytes.TrimRight(content, " \t\r\n")
	if i := bytes.Index(text, []byte(" #")); i >= 0 {
		text = bytes.TrimRight(text[:i], " \t")
	}
	for _, none := range []string{" []", " null", " ~"} {
		text = bytes.TrimSuffix(text, []byte(none))
	}
	if len(text) < 2 || text[len(text)-1] != ':' || bytes.ContainsAny(text[:1], "&*!|>[{?@`") {
		return errOtherStyle
	}
	// Let the parser decide what the key is: it may be quoted, or a number.
	var keys map[string]any
	if err := yaml.Unmarshal(append(text, " null"...), &keys); err != nil || len(keys) != 1 {
		return errOtherStyle
	}
	for key := range keys {
		y.chart(key)
	}
	if y.current == "" {
		return errOtherStyle
	}
	y.items = -1
	return nil
}

// endItem parses the item that the lines before end.
func (y *yamlIndex) endItem() error {
	if y.item == nil {
		return nil
	}
	text := y.item
	y.item = nil
	budget := archive.YAMLBudget{Bytes: int64(y.limits.item), Entries: int64(y.limits.item) / 16}
	if err := budget.Take(text); err != nil {
		return fmt.Errorf("a version of chart %q in the repository's index: %w", y.current, err)
	}
	var versions []*helmrepo.ChartVersion
	if err := yaml.Unmarshal(text, &versions); err != nil || len(versions) != 1 {
		return errOtherStyle // it may refer to an anchor elsewhere; or it is none of Helm's
	}
	y.add(versions[0])
	return nil
}

// append appends a line to a text within the limit.
func (y *yamlIndex) append(text *[]byte, line []byte) error {
	if len(*text)+len(line) > y.limits.item {
		return fmt.Errorf("one version in the repository's index has more than %d bytes", y.limits.item)
	}
	*text = append(*text, line...)
	return nil
}

// isItem reports whether a line begins an item of a list.
func isItem(content []byte) bool {
	return content[0] == '-' && (len(content) == 1 || content[1] == ' ' || content[1] == '\t')
}

// empty reports whether nothing but a comment follows a key.
func empty(rest []byte) bool {
	trimmed := bytes.TrimSpace(rest)
	return len(trimmed) == 0 || trimmed[0] == '#' && rest[0] != '#'
}
