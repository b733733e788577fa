package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
)

type member struct {
	name, body string
	typeflag   byte
	size       int64 // claimed; the body's when 0
}

const chartYAML = "apiVersion: v2\nname: app\nversion: 1.0.0\n"

// pack writes an archive. Members may claim a wrong size.
func pack(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.body)), Typeflag: m.typeflag}
		if m.size != 0 {
			h.Size = m.size
		}
		switch m.typeflag {
		case 0:
			h.Typeflag = tar.TypeReg
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname, h.Size = m.body, 0
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(tw, m.body); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = tw.Flush() // fails for a wrong size, which is what the caller wants
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRead(t *testing.T) {
	sub := pack(t, member{name: "db/Chart.yaml", body: "apiVersion: v2\nname: db\nversion: 2.0.0\n"}, member{name: "db/values.schema.json", body: "{}"})
	data := pack(t,
		member{name: "app/", typeflag: tar.TypeDir},
		member{name: "app/Chart.yaml", body: "\xef\xbb\xbf" + chartYAML},
		member{name: "app/values.yaml", body: "a: 1\n"},
		member{name: "app/values.schema.json", body: `{"type": "object"}`},
		member{name: "app/ci/other.yaml", body: "a: 2\n"},
		member{name: "app/templates/x.yaml", body: "{{ nonsense"},
		member{name: "app/charts/db-2.0.0.tgz", body: string(sub)},
		member{name: `app\charts\queue\Chart.yaml`, body: "apiVersion: v2\nname: queue\nversion: 3.0.0\n"},
		member{name: "app/charts/_notes/Chart.yaml", body: "nonsense"},
	)
	c, err := archive.Read(bytes.NewReader(data), archive.DefaultLimits(), "./ci/other.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Name() != "app" || c.Values["a"] != 1.0 || string(c.Schema) != `{"type": "object"}` || len(c.Templates) != 1 {
		t.Errorf("read %+v", c)
	}
	if len(c.Files) != 1 || c.Files[0].Name != "ci/other.yaml" {
		t.Errorf("files %v", c.Files)
	}
	var names []string
	for _, d := range c.Dependencies() {
		names = append(names, d.Name()+" "+string(d.Schema))
	}
	if got := strings.Join(names, ","); got != "db {},queue " && got != "queue ,db {}" {
		t.Errorf("subcharts %s", got)
	}
}

func TestRead_HostileArchives(t *testing.T) {
	good := member{name: "app/Chart.yaml", body: chartYAML}
	nested := pack(t, member{name: "c/Chart.yaml", body: "apiVersion: v2\nname: c\nversion: 1.0.0\n"})
	for range 10 {
		nested = pack(t, member{name: "c/Chart.yaml", body: "apiVersion: v2\nname: c\nversion: 1.0.0\n"}, member{name: "c/charts/c.tgz", body: string(nested)})
	}
	var many []member
	for i := range 20_001 {
		many = append(many, member{name: fmt.Sprintf("app/docs/%d", i)})
	}
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"no gzip":                            {[]byte("PK\x03\x04"), "reading the chart archive: it is not a gzip file: "},
		"no tar":                             {gzipped(t, strings.Repeat("x", 2000)), "reading the chart archive: it is not a tar file: "},
		"nothing in it":                      {pack(t), "reading the chart archive: it contains no chart"},
		"no Chart.yaml":                      {pack(t, member{name: "app/values.yaml", body: "a: 1"}), "reading the chart: Chart.yaml file is missing"},
		"a claim of 2 GB":                    {pack(t, member{name: "app/values.yaml", size: 2 << 30}), `reading the chart archive: "app/values.yaml" claims 2147483648 bytes, more than the 33554432 left of the limit`},
		"a claim that is not kept":           {pack(t, member{name: "app/values.yaml", body: "a", size: 1000}), `reading the chart archive: "app/values.yaml": unexpected EOF`},
		"2 GB of zeros in what is not read":  {pack(t, good, member{name: "app/templates/x", body: strings.Repeat("\x00", 64<<20)}), "reading the chart archive: it is not a tar file: the archive is compressed more than 200 to 1"},
		"zeros in what is read":              {pack(t, good, member{name: "app/values.yaml", body: strings.Repeat("\x00", 20<<20)}), `reading the chart archive: "app/values.yaml": the archive is compressed more than 200 to 1`},
		"too many files":                     {pack(t, many...), "reading the chart archive: the chart has more than 20000 files"},
		"a path that leads out":              {pack(t, good, member{name: "app/../../etc/passwd", body: "x"}), `reading the chart archive: "app/../../etc/passwd" is outside of the chart's directory`},
		"a path that leads out by backslash": {pack(t, good, member{name: `app\..\..\etc\passwd`, body: "x"}), `reading the chart archive: "app\\..\\..\\etc\\passwd" is outside of the chart's directory`},
		"an absolute path":                   {pack(t, good, member{name: "/etc/passwd", body: "x"}), `reading the chart archive: "/etc/passwd" is outside of the chart`},
		"a file beside the chart":            {pack(t, good, member{name: "Chart.yaml", body: "x"}), `reading the chart archive: "Chart.yaml" is outside of the chart's directory`},
		"a symbolic link":                    {pack(t, good, member{name: "app/values.yaml", body: "/etc/passwd", typeflag: tar.TypeSymlink}), `reading the chart archive: "app/values.yaml" is a link or a device, which a packaged chart cannot contain`},
		"a hard link":                        {pack(t, good, member{name: "app/values.yaml", body: "/etc/passwd", typeflag: tar.TypeLink}), `reading the chart archive: "app/values.yaml" is a link or a device, which a packaged chart cannot contain`},
		"a device":                           {pack(t, good, member{name: "app/values.yaml", typeflag: tar.TypeChar}), `reading the chart archive: "app/values.yaml" is a link or a device, which a packaged chart cannot contain`},
		"charts in charts without end":       {pack(t, good, member{name: "app/charts/c.tgz", body: string(nested)}), `subcharts are nested deeper than 8`},
		"values that are no YAML":            {pack(t, good, member{name: "app/values.yaml", body: "a: ["}), "reading the chart: cannot load values.yaml: "},
		"values that nest very deep":         {pack(t, good, member{name: "app/values.yaml", body: random(1<<20) + strings.Repeat("[", 100_000)}), "app/values.yaml: it is nested too deep"},
		"metadata that is no YAML":           {pack(t, member{name: "app/Chart.yaml", body: "- x"}), "reading the chart: cannot load Chart.yaml: "},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := archive.Read(bytes.NewReader(tc.data), archive.DefaultLimits())
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(tc.want, "app/")) {
				t.Errorf("Read: %.400v, want %s", err, tc.want)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
				t.Errorf("reading it allocated %d MiB", used>>20)
			}
		})
	}
}

// random is text that does not compress to nothing.
func random(n int) string {
	var b strings.Builder
	x := uint32(1)
	for b.Len() < n {
		x = x*1664525 + 1013904223
		fmt.Fprintf(&b, "# %x\n", x)
	}
	return b.String()
}

func gzipped(t testing.TB, s string) []byte {
	t.Helper()
	var buf bytes.Buffer
	gz, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(gz, s); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestReadFS(t *testing.T) {
	c, err := archive.ReadFS(fstest.MapFS{
		"charts/app/Chart.yaml":                   {Data: []byte(chartYAML)},
		"charts/app/values.yaml":                  {Data: []byte("a: 1")},
		"charts/app/.helmignore":                  {Data: []byte("ignored/\n")},
		"charts/app/ignored/x.yaml":               {Data: []byte("a: 1")},
		"charts/app/templates/huge.yaml":          {Data: make([]byte, 1)},
		"charts/app/charts/db/Chart.yaml":         {Data: []byte("apiVersion: v2\nname: db\nversion: 1.0.0")},
		"charts/app/charts/db/values.schema.json": {Data: []byte("{}")},
	}, "charts/app", archive.DefaultLimits(), "ignored/x.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Name() != "app" || len(c.Files) != 1 || len(c.Dependencies()) != 1 || string(c.Dependencies()[0].Schema) != "{}" {
		t.Errorf("read %+v", c)
	}
}

func TestReadPath_StaysInside(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(outside, "password: hunter2")
	write(filepath.Join(dir, "Chart.yaml"), chartYAML)
	if err := os.Symlink(outside, filepath.Join(dir, "values.yaml")); err != nil {
		t.Fatal(err)
	}
	_, err := archive.ReadPath(dir, archive.DefaultLimits())
	if want := `reading the chart directory .: "values.yaml" is a link or a device; only regular files are read`; err == nil || err.Error() != want {
		t.Errorf("ReadPath: %v, want %s", err, want)
	}
	packed := filepath.Join(t.TempDir(), "app.tgz")
	write(packed, string(pack(t, member{name: "app/Chart.yaml", body: chartYAML})))
	if c, err := archive.ReadPath(packed, archive.DefaultLimits()); err != nil || c.Name() != "app" {
		t.Errorf("ReadPath: %v, %v", c, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(pack(f, member{name: "app/Chart.yaml", body: chartYAML}, member{name: "app/values.yaml", body: "a: 1"}))
	f.Add(pack(f, member{name: "app/values.yaml", size: 2 << 30}))
	f.Add(pack(f, member{name: "app/Chart.yaml", body: chartYAML}, member{name: "app/charts/x.tgz", body: string(pack(f, member{name: "x/Chart.yaml", body: chartYAML}))}))
	f.Add([]byte("\x1f\x8b\x08"))
	limits := archive.Limits{Entries: 100, Bytes: 1 << 20, Kept: 1 << 18, Ratio: 100, Depth: 3}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := archive.Read(bytes.NewReader(data), limits, "x.yaml")
		if (c == nil) == (err == nil) {
			t.Errorf("chart %v with error %v", c, err)
		}
	})
}

// FuzzMember fuzzes one entry of an archive: a fuzzer cannot compute the checksums of gzip and tar.
func FuzzMember(f *testing.F) {
	f.Add("app/values.yaml", []byte("a: 1"), byte(tar.TypeReg), int64(0))
	f.Add("app/../x", []byte("x"), byte(tar.TypeReg), int64(0))
	f.Add("app/values.yaml", []byte("/etc/passwd"), byte(tar.TypeSymlink), int64(0))
	f.Add("app/values.schema.json", []byte("{}"), byte(tar.TypeReg), int64(2<<30))
	f.Add(`app\charts\x\Chart.yaml`, []byte("a: &a [*a]"), byte(tar.TypeReg), int64(0))
	f.Fuzz(func(t *testing.T, name string, body []byte, typeflag byte, size int64) {
		var raw bytes.Buffer
		tw := tar.NewWriter(&raw)
		for _, h := range []*tar.Header{
			{Name: "app/Chart.yaml", Size: int64(len(chartYAML)), Typeflag: tar.TypeReg},
			{Name: name, Size: max(int64(len(body)), size), Typeflag: typeflag, Linkname: "x"},
		} {
			if tw.WriteHeader(h) != nil {
				return
			}
			text := body
			if h.Name == "app/Chart.yaml" {
				text = []byte(chartYAML)
			}
			if _, err := tw.Write(text); err != nil && h.Typeflag == tar.TypeReg {
				return
			}
		}
		c, err := archive.Read(bytes.NewReader(stored(raw.Bytes())), archive.Limits{Entries: 100, Bytes: 1 << 20, Kept: 1 << 18, Ratio: 100, Depth: 3})
		if (c == nil) == (err == nil) {
			t.Errorf("chart %v with error %v", c, err)
		}
	})
}

// stored is a gzip file of blocks that are not compressed.
func stored(data []byte) []byte {
	out := []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
	sum, n := crc32.ChecksumIEEE(data), uint32(len(data))
	for {
		block := data[:min(len(data), 65535)]
		data = data[len(block):]
		final := byte(0)
		if len(data) == 0 {
			final = 1
		}
		out = append(out, final, byte(len(block)), byte(len(block)>>8), ^byte(len(block)), ^byte(len(block)>>8))
		out = append(out, block...)
		if final == 1 {
			break
		}
	}
	out = binary.LittleEndian.AppendUint32(out, sum)
	return binary.LittleEndian.AppendUint32(out, n)
}
