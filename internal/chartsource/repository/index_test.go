package repository

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	helmrepo "helm.sh/helm/v4/pkg/repo/v1"
	"sigs.k8s.io/yaml"
)

// decodeWhole reads an index as Helm does, all at once.
func decodeWhole(data []byte) (map[string][]Version, error) {
	var file helmrepo.IndexFile
	if err := yaml.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.APIVersion == "" {
		return nil, errors.New("no apiVersion")
	}
	b := newIndexBuilder("", IndexLimits{Kept: 1 << 40})
	for name, versions := range file.Entries {
		b.chart(name)
		for _, v := range versions {
			b.add(v)
		}
	}
	return b.entries, nil
}

// indexes are indexes of every style, by what is special in them.
var styles = map[string]string{
	"Helm's own": `apiVersion: v1
entries:
  app:
  - apiVersion: v2
    created: "2020-01-01T00:00:00Z"
    digest: ABC
    description: |
      A text
        - name: other
      # no comment
    name: app
    urls:
    - app-1.0.0.tgz
    - https://example.com/app-1.0.0.tgz
    version: 1.0.0
  - name: app
    version: 1.1.0
    urls: [app-1.1.0.tgz]
  web:
  - name: web
    version: 2.0.0
generated: "2020-01-01T00:00:00Z"
`,
	"indented items":           "apiVersion: v1\nentries:\n    app:\n      - name: app\n        version: 1.0.0\n      -\n        name: app\n        version: 1.1.0\n",
	"entries first":            "entries:\n  app:\n  - {name: app, version: 1.0.0}\napiVersion: v1\n",
	"comments":                 "# a\napiVersion: v1 # b\n\nentries: # c\n  # d\n  app: # e\n# f\n  - name: app # g\n    # h\n# i\n    version: 1.0.0\n\n  # j\ngenerated: x # k\n",
	"Windows lines":            "apiVersion: v1\r\nentries:\r\n  app:\r\n  - name: app\r\n    version: 1.0.0\r\n",
	"old Mac lines":            "apiVersion: v1\rentries:\r  app:\r  - name: app\r    version: 1.0.0\r",
	"quoted keys":              "apiVersion: v1\nentries:\n  \"app\":\n  - name: app\n    version: 1.0.0\n  'we b':\n  - {name: web, version: 1.0.0}\n",
	"keys that are no text":    "apiVersion: v1\nentries:\n  1:\n  - {name: a, version: 1.0.0}\n  1.0:\n  - {name: b, version: 1.0.0}\n  true:\n  - {name: c, version: 1.0.0}\n",
	"versions without quotes":  "apiVersion: v1\nentries:\n  app:\n  - {name: app, version: 1.0}\n  - {name: app, version: 2}\n",
	"a document marker":        "---\napiVersion: v1\nentries:\n  app:\n  - {name: app, version: 1.0.0}\n",
	"two documents":            "apiVersion: v1\nentries:\n  app:\n  - {name: app, version: 1.0.0}\n---\napiVersion: v1\n",
	"an end of the document":   "apiVersion: v1\nentries:\n  app:\n  - {name: app, version: 1.0.0}\n...\n",
	"flow style":               "{apiVersion: v1, entries: {app: [{name: app, version: 1.0.0}]}}",
	"entries in flow style":    "apiVersion: v1\nentries: {app: [{name: app, version: 1.0.0, urls: [a.tgz]}], web: []}\n",
	"a chart in flow style":    "apiVersion: v1\nentries:\n  app: [{name: app,\n  version: 1.0.0}]\n  web:\n  - {name: web, version: 1.0.0}\n",
	"anchors in an item":       "apiVersion: v1\nentries:\n  app:\n  - &a\n    name: app\n    version: &v 1.0.0\n    appVersion: *v\n",
	"anchors of another item":  "apiVersion: v1\nentries:\n  app:\n  - &a\n    name: app\n    version: 1.0.0\n  - <<: *a\n    version: 1.1.0\n",
	"an anchor of the head":    "apiVersion: &v v1\nentries:\n  app:\n  - {name: app, version: 1.0.0, appVersion: *v}\n",
	"an anchor of a chart":     "apiVersion: v1\nentries:\n  app: &a\n  - {name: app, version: 1.0.0}\n  web: *a\n",
	"a merge of entries":       "apiVersion: v1\nbase: &b\n  app:\n  - {name: app, version: 1.0.0}\nentries:\n  <<: *b\n",
	"tabs":                     "apiVersion:\tv1\nentries:\t\n  app:\t\n  - name:\tapp\n    version: 1.0.0\n\t\n",
	"an indent of tabs":        "apiVersion: v1\nentries:\n\tapp:\n\t- name: app\n",
	"a text over lines":        "apiVersion: v1\nentries:\n  app:\n  - name: app\n    description: \"a\n  web:\n  - name: b\n\"\n    version: 1.0.0\n",
	"a plain text over lines":  "apiVersion: v1\nentries:\n  app:\n  - name: app\n    description: a\n      b\n     c\n    version: 1.0.0\n",
	"a flow over lines":        "apiVersion: v1\nentries:\n  app:\n  - name: app\n    keywords: [a,\n  b,\nc]\n    version: 1.0.0\n",
	"a chart twice":            "apiVersion: v1\nentries:\n  app:\n  - {name: app, version: 1.0.0}\n  app:\n  - {name: app, version: 1.1.0}\n",
	"entries twice":            "apiVersion: v1\nentries:\n  app:\n  - {name: app, version: 1.0.0}\nentries:\n  web:\n  - {name: web, version: 1.1.0}\n",
	"a quoted entries":         "apiVersion: v1\n\"entries\":\n  app:\n  - {name: app, version: 1.0.0}\n",
	"a tagged entries":         "apiVersion: v1\n!!str entries:\n  app:\n  - {name: app, version: 1.0.0}\n",
	"a complex key":            "apiVersion: v1\n? entries\n: app:\n  - {name: app, version: 1.0.0}\n",
	"null versions":            "apiVersion: v1\nentries:\n  app:\n  -\n  - null\n  - ~\n  - {name: app, version: 1.0.0}\n  web: null\n  db:\n  x: []\n",
	"no metadata":              "apiVersion: v1\nentries:\n  app:\n  - urls: [a.tgz]\n  - {}\n",
	"no entries":               "apiVersion: v1\n",
	"empty entries":            "apiVersion: v1\nentries:\n",
	"entries that are a list":  "apiVersion: v1\nentries:\n- app\n",
	"a chart that is a map":    "apiVersion: v1\nentries:\n  app:\n    name: app\n",
	"a wrong type":             "apiVersion: v1\nentries:\n  app:\n  - name: [app]\n",
	"a wrong time":             "apiVersion: v1\nentries:\n  app:\n  - name: app\n    created: yesterday\n",
	"no apiVersion":            "entries:\n  app:\n  - {name: app, version: 1.0.0}\n",
	"a byte order mark":        "\xef\xbb\xbfapiVersion: v1\nentries:\n  app:\n  - {name: app, version: 1.0.0}\n",
	"nothing":                  "",
	"a web page":               "<!DOCTYPE html>\n<html>\n",
	"no line end":              "apiVersion: v1\nentries:\n  app:\n  - name: app\n    version: 1.0.0",
	"JSON":                     ` {"apiVersion": "v1", "generated": "2020-01-01T00:00:00Z", "more": {"a": [1, {}]}, "entries": {"b": [null, {"name": "b", "version": "1.0.0", "digest": "sha256:ABC", "urls": ["x", "y"], "created": "2020-01-01T00:00:00Z"}], "a": [], "c": null}}`,
	"JSON with a chart twice":  `{"apiVersion": "v1", "entries": {"a": [{"name": "a", "version": "1"}], "a": [{"name": "a", "version": "2"}]}}`,
	"JSON with other capitals": `{"APIVersion": "v1", "Entries": {"a": [{"Name": "a", "version": "1"}]}}`,
	"JSON of a wrong type":     `{"apiVersion": "v1", "entries": {"a": {"name": "a"}}}`,
	"JSON of a wrong time":     `{"apiVersion": "v1", "entries": {"a": [{"name": "a", "created": "x"}]}}`,
	"JSON with more after it":  `{"apiVersion": "v1", "entries": {}} {"apiVersion": "v1"}`,
	"half of JSON":             `{"apiVersion": "v1", "entries": {"a": [{"name": "a"`,
}

// TestReadIndex_EqualsHelm: an index that is read item by item has the same versions as one that is decoded as a whole.
func TestReadIndex_EqualsHelm(t *testing.T) {
	for name, text := range styles {
		t.Run(name, func(t *testing.T) {
			want, wantErr := decodeWhole([]byte(text))
			got, err := ReadIndex(strings.NewReader(text), "app", AdmissionIndexLimits())
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("ReadIndex() = %v, Helm: %v", err, wantErr)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(want, got.entries, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("versions (-Helm +got):\n%s", diff)
			}
		})
	}
}

func FuzzReadIndex(f *testing.F) {
	for _, text := range styles {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ReadIndex(bytes.NewReader(data), "app", AdmissionIndexLimits())
		if err != nil {
			return
		}
		want, err := decodeWhole(data)
		if err != nil {
			return // a part that was not read, such as a comment, is not valid
		}
		if diff := cmp.Diff(want, got.entries, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q: versions (-Helm +got):\n%s", data, diff)
		}
	})
}

func TestReadIndex_Find(t *testing.T) {
	x, err := ReadIndex(strings.NewReader(styles["JSON"]), "b", AdmissionIndexLimits())
	if err != nil {
		t.Fatal(err)
	}
	got, err := x.Find("b", "")
	if want := (Version{Version: "1.0.0", URL: "x", Digest: "abc", Created: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}); err != nil || got != want {
		t.Errorf("Find = %+v, %v; want %+v", got, err, want)
	}
	for _, name := range []string{"a", "c", "d"} {
		if _, err := x.Find(name, ""); !errors.Is(err, ErrNotFound) || !x.Covers(name) {
			t.Errorf("Find(%s): %v", name, err)
		}
	}
	if _, err := x.Find("b", strings.Repeat(">=1 || ", 200)+">=1"); err == nil || !strings.Contains(err.Error(), "more than 1024") {
		t.Errorf("Find with a long range: %v", err)
	}
}

// writeIndex writes an index of at least n bytes, as a large repository has it.
func writeIndex(w io.Writer, n int, asJSON bool) error {
	count := &countingWriter{w: w}
	versions, format, next, end := 200, "  - apiVersion: v2\n    appVersion: 1.2.%[1]d\n    created: \"2023-01-01T00:00:00Z\"\n"+
		"    description: A chart that does a thing and another thing and needs a line for it\n    digest: %064[1]d\n"+
		"    keywords:\n    - a\n    - b\n    maintainers:\n    - email: a@example.com\n      name: A\n    name: chart%[2]d\n"+
		"    urls:\n    - https://example.com/chart%[2]d-1.2.%[1]d.tgz\n    version: 1.2.%[1]d\n", "", ""
	begin, name := "apiVersion: v1\nentries:\n", "  chart%d:\n"
	if asJSON {
		begin, name, next, end = `{"apiVersion": "v1", "entries": {`, `"chart%d": [`, ",", "null],"
		format = `{"name": "chart%[2]d", "version": "1.2.%[1]d", "digest": "%064[1]d", "urls": ["https://example.com/chart%[2]d-1.2.%[1]d.tgz"],` +
			`"description": "A chart that does a thing and another thing and needs a line for it"}`
	}
	fmt.Fprint(count, begin)
	for c := 0; count.n < n; c++ {
		fmt.Fprintf(count, name, c)
		for v := range versions {
			fmt.Fprintf(count, format, v, c)
			fmt.Fprint(count, next)
		}
		fmt.Fprint(count, end)
	}
	if asJSON {
		fmt.Fprint(count, `"last": []}}`)
	}
	return count.err
}

type countingWriter struct {
	w   io.Writer
	n   int
	err error
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += n
	c.err = errors.Join(c.err, err)
	return n, err
}

// TestReadIndex_Memory reads an index of 25 MiB in a process of its own, and measures that. Decoding it as a whole takes
// more than 400 MiB. The test program itself, which links the libraries, takes 50 MiB.
func TestReadIndex_Memory(t *testing.T) {
	base := peak(t, "")
	for _, style := range []string{"YAML", "JSON"} {
		t.Run(style, func(t *testing.T) {
			took := peak(t, style) - base
			t.Logf("%d MiB", took)
			if took > 48 {
				t.Errorf("reading an index of 25 MiB took %d MiB, want at most 48", took)
			}
		})
	}
}

// peak returns the largest resident memory, in MiB, of a process that reads an index.
func peak(t *testing.T, style string) int64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestReadIndex_Large$")
	cmd.Env = append(os.Environ(), "READ_INDEX="+style)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10
}

// TestReadIndex_Large is a part of TestReadIndex_Memory.
func TestReadIndex_Large(t *testing.T) {
	style := os.Getenv("READ_INDEX")
	size := 25 << 20
	if style == "" {
		size, style = 1<<20, "YAML"
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeIndex(w, size, style == "JSON")) }()
	x, err := ReadIndex(r, "chart3", AdmissionIndexLimits())
	if err != nil {
		t.Fatal(err)
	}
	v, err := x.Find("chart3", "")
	if err != nil || v.Version != "1.2.199" {
		t.Errorf("Find() = %+v, %v", v, err)
	}
	if x.Memory() > 4<<20 || !x.Covers("chart3") || x.partial && x.Covers("chart4") {
		t.Errorf("an index of %d bytes, partial: %t", x.Memory(), x.partial)
	}
}

// TestReadIndex_Limits: what does not fit the limits is an error, not memory.
func TestReadIndex_Limits(t *testing.T) {
	limits := IndexLimits{Kept: 1000, Whole: 1000, item: 1000}
	long := strings.Repeat("x", 2000)
	versions := strings.Repeat("  - {name: app, version: 1.0.0}\n", 20)
	for name, tc := range map[string]struct{ text, want string }{
		"many versions of the chart": {"apiVersion: v1\nentries:\n  app:\n" + versions, `more than 1000 bytes of versions of chart "app"`},
		"many versions of another":   {"apiVersion: v1\nentries:\n  web:\n" + versions + "  app:\n  - {name: app, version: 1.0.0}\n", ""},
		"and before the chart":       {"apiVersion: v1\nentries:\n  app:\n  - {name: app, version: 1.0.0}\n  web:\n" + versions, ""},
		"a long version":             {"apiVersion: v1\nentries:\n  app:\n  - name: app\n" + strings.Repeat("    "+long[:100]+": 1\n", 10), "one version in the repository's index has more than 1000 bytes"},
		"a long line":                {"apiVersion: v1\nentries:\n  app:\n  - name: " + long, "a line of the repository's index has more than 1000 bytes"},
		"a long head":                {strings.Repeat("a"+long[:100]+": 1\n", 10), "more than 1000 bytes"},
		"another style":              {"{apiVersion: v1, a: " + long + "}", "more than 1000 bytes in another style than Helm's"},
		"JSON":                       {`{"apiVersion": "v1", "a": "` + long + `"}`, "one version in the repository's index has more than 1000 bytes"},
		"aliases":                    {"apiVersion: v1\nentries:\n  app:\n  - {a: &a [1, 2], b: &b [*a, *a], c: &c [*b, *b], d: &d [*c, *c], e: &e [*d, *d], f: [*e, *e]}\n", "its aliases are replaced by more entries"},
	} {
		t.Run(name, func(t *testing.T) {
			x, err := ReadIndex(strings.NewReader(tc.text), "app", limits)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("ReadIndex() = %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if v, err := x.Find("app", ""); err != nil || v.Version != "1.0.0" || x.Covers("web") {
				t.Errorf("Find() = %+v, %v; covers another chart: %t", v, err, x.Covers("web"))
			}
		})
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nentries: {app: [{name: app, version: 1.0.0, urls: [a.tgz], digest: x}]}"), "1.x", "https://example.com")
	f.Add([]byte(`{"apiVersion": "v1", "entries": {"app": [null, {}]}}`), ">=1 <2 || x", "::")
	f.Add([]byte("apiVersion: v1\nentries: {app: [{version: v1.0.0-rc.1+b, urls: ['%zz']}]}"), "", "https://example.com/%2f?x")
	f.Fuzz(func(t *testing.T, data []byte, rng, url string) {
		x, err := ReadIndex(bytes.NewReader(data), "app", AdmissionIndexLimits())
		if err != nil {
			return
		}
		v, err := x.Find("app", rng)
		if err != nil {
			return
		}
		if _, err := IndexURL(url); err != nil {
			return
		}
		if u, err := ChartURL(url, v); err == nil && u == "" {
			t.Error("an empty address")
		}
	})
}
