package chartsource_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// memoryLimit is the resident memory of the process, in MiB: the 256 that the webhook server is installed with, and the
// pages of the program's file, which the kernel drops when memory is short.
const memoryLimit = 256 + 32

// Malicious charts are rejected, or evaluated as far as possible, eight at a time in a process whose memory is measured. A good chart is evaluated after each. There is no limit of time: the work is bounded by counts.
func TestResolver_HostileCharts(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector alone needs more than the limited memory")
	}
	if os.Getenv("HOSTILE_CHARTS") != "" {
		evaluateHostile(t)
		return
	}
	good := newRepo(t)
	good.publish(t, "good", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	definitions := func(n int, format string) string {
		var b strings.Builder
		b.WriteString(`{"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/d0", "definitions": {`)
		for i := range n {
			fmt.Fprintf(&b, `"d%d": `+strings.ReplaceAll(format, "NEXT", fmt.Sprintf("#/definitions/d%d", i+1))+",", i)
		}
		fmt.Fprintf(&b, `"d%d": true}}`, n)
		return b.String()
	}
	alias := func(n int) string {
		var b strings.Builder
		b.WriteString("apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies:\n")
		for i := range n {
			fmt.Fprintf(&b, "- {name: sub, alias: a%d, version: 1.x}\n", i)
		}
		return b.String()
	}
	deepValues := strings.Repeat(`{"a":`, 9_000) + "1" + strings.Repeat("}", 9_000)
	laughs := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		laughs += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	nested := map[string]string{}
	path := ""
	for range 40 {
		path += "charts/c/"
		nested[path+"Chart.yaml"] = "apiVersion: v2\nname: c\nversion: 1.0.0\n"
	}
	cases := map[string]struct {
		files map[string]string
		// want is part of the reason why the chart is unknown, of the error, or of what is missing in the result; empty for
		// none.
		want string
	}{
		"a schema that refers to itself":                     {map[string]string{"values.schema.json": `{"$ref": "#"}`}, "infinite loop"},
		"a schema that refers to itself in alternatives":     {map[string]string{"values.schema.json": `{"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}, {"$ref": "#/properties/a"}]}}}`}, "infinite loop"},
		"a schema that doubles its cost at every level":      {map[string]string{"values.schema.json": definitions(60, `{"allOf": [{"$ref": "NEXT"}, {"$ref": "NEXT"}]}`)}, "takes too many steps"},
		"a schema that doubles its cost by the values":       {map[string]string{"values.yaml": `{"a": ` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 101), "values.schema.json": `{"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}`}, "takes too many steps"},
		"a chain of 100,000 references":                      {map[string]string{"values.schema.json": definitions(100_000, `{"$ref": "NEXT"}`)}, "the schema is rejected"},
		"a chain of 5,000 references through properties":     {map[string]string{"values.schema.json": definitions(4_900, `{"properties": {"a": {"$ref": "NEXT"}}}`)}, ""},
		"a schema with a million properties":                 {map[string]string{"values.schema.json": `{"properties": {` + quotedKeys(1_000_000) + `}}`}, "left of the limit"},
		"a schema that is nested 100,000 deep":               {map[string]string{"values.schema.json": strings.Repeat(`{"not":`, 100_000) + "{}" + strings.Repeat("}", 100_000)}, "the schema is rejected"},
		"a schema that is no JSON":                           {map[string]string{"values.schema.json": "\x00\x01"}, "the schema is rejected"},
		"a schema of the wrong types":                        {map[string]string{"values.schema.json": `{"properties": [], "required": {}, "type": 1, "$ref": {}, "$id": 1, "$schema": []}`}, "cannot be used"},
		"a schema with a file":                               {map[string]string{"values.yaml": "a: 1", "values.schema.json": `{"properties": {"a": {"$ref": "file:///etc/passwd"}}}`}, "the schema at file:///etc/passwd"},
		"a schema with a device":                             {map[string]string{"values.schema.json": `{"$ref": "file:///dev/zero"}`}, "the schema at file:///dev/zero"},
		"a schema with a metadata service":                   {map[string]string{"values.schema.json": `{"$ref": "http://169.254.169.254/latest/meta-data"}`}, "the schema at http://169.254.169.254/latest/meta-data"},
		"a schema with a draft of its own":                   {map[string]string{"values.schema.json": `{"$schema": "http://169.254.169.254/"}`}, "is not loaded"},
		"a pattern that is exponential in other engines":     {map[string]string{"values.yaml": "a: " + strings.Repeat("a", 100_000), "values.schema.json": `{"properties": {"a": {"pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}}}`}, ""},
		"a pattern that grows when compiled":                 {map[string]string{"values.schema.json": `{"pattern": "((x{500}){2}){500}"}`}, "cannot be used"},
		"a number with a huge exponent":                      {map[string]string{"values.schema.json": `{"multipleOf": 1e-999999999}`}, "the schema is rejected"},
		"unique items of a very long list":                   {map[string]string{"values.yaml": "a: [" + strings.Repeat("x,", 90_000) + "x, y]", "values.schema.json": `{"properties": {"a": {"uniqueItems": true}}}`}, ""},
		"unique items of a very long list of differing maps": {map[string]string{"values.yaml": "a: [" + numbered(20_000) + "]", "values.schema.json": `{"properties": {"a": {"uniqueItems": true}}}`}, "takes too many steps"},
		"values that are nested 9,000 deep":                  {map[string]string{"values.yaml": deepValues}, "nested deeper"},
		"values with a billion aliases":                      {map[string]string{"values.yaml": laughs}, "its aliases are replaced by more entries of maps and lists than the"},
		"values with a million keys":                         {map[string]string{"values.yaml": manyKeys(1_000_000)}, "bytes, more than the"},
		"values with 100,001 keys":                           {map[string]string{"values.yaml": manyKeys(100_001)}, "it has more entries of maps and lists than the"},
		"values of 16 MiB of lists":                          {map[string]string{"values.yaml": "a: [" + strings.Repeat("[],", 3_900_000) + "[]]"}, "compressed more than 200 to 1"},
		"values of 4 MiB of lists":                           {map[string]string{"values.yaml": "# " + random(1<<15) + "\na: [" + strings.Repeat("[],", 1_000_000) + "[]]"}, "more entries of maps and lists than the"},
		"values with a long text and aliases":                {map[string]string{"values.yaml": "s: &s " + random(1<<16) + "\nl: [" + strings.Repeat("*s,", 10_000) + "]\n"}, "its aliases are replaced by more bytes than the"},
		"a schema with patterns of 3 kB that are repeated":   {map[string]string{"values.yaml": "a: x", "values.schema.json": `{"properties": {"a": {"pattern": "^(?:` + strings.Repeat("ab", 1500) + `){1000}$"}}}`}, "too complex"},
		"a chart with a thousand aliases":                    {map[string]string{"Chart.yaml": alias(1_000), "charts/sub/Chart.yaml": "apiVersion: v2\nname: sub\nversion: 1.0.0\n"}, "dependencies, more than 500"},
		"aliases of charts with aliases":                     {map[string]string{"Chart.yaml": alias(100), "charts/sub/Chart.yaml": strings.ReplaceAll(strings.ReplaceAll(alias(100), "name: sub", "name: leaf"), "name: app", "name: sub"), "charts/sub/charts/leaf/Chart.yaml": "apiVersion: v2\nname: leaf\nversion: 1.0.0\n"}, "more than 1000 charts"},
		"a chart of the name of a path":                      {map[string]string{"Chart.yaml": "apiVersion: v2\nname: ../../app\nversion: 1.0.0\n"}, "is invalid"},
		"an import of a missing value":                       {map[string]string{"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies: [{name: sub, version: 1.x, import-values: [{child: a.b, parent: ..}, x, 1, null]}]\n", "charts/sub/Chart.yaml": "apiVersion: v2\nname: sub\nversion: 1.0.0\n"}, ""},
		"a dependency that is null":                          {map[string]string{"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies: [null]\n"}, "must not contain empty or null nodes"},
		"subcharts in subcharts":                             {nested, ""},
		"templates of 20 MB":                                 {map[string]string{"templates/a.yaml": random(20 << 20)}, "left of the limit"},
		"templates of 10 MB":                                 {map[string]string{"templates/a.yaml": random(10 << 20)}, ""},
	}
	urls := map[string]string{"": good.URL}
	for name, tc := range cases {
		server := newRepo(t)
		server.publish(t, "app", "1.0.0", tc.files)
		urls[name] = server.URL
	}
	input, err := json.Marshal(urls)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestResolver_HostileCharts$")
	results := filepath.Join(t.TempDir(), "results.json")
	cmd.Env = append(os.Environ(), "HOSTILE_CHARTS="+results, "GOMEMLIMIT=230MiB")
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-8000):])
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10
	t.Logf("%d MiB", peak)
	if peak > memoryLimit {
		t.Errorf("the hostile charts took %d MiB, want at most %d", peak, memoryLimit)
	}
	var got map[string]string
	if output, err := os.ReadFile(results); err != nil || json.Unmarshal(output, &got) != nil {
		t.Fatalf("no results: %v", err)
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			result, evaluated := got[name]
			if !evaluated || !strings.Contains(result, tc.want) || tc.want == "" && result != "" {
				t.Errorf("got %.500s, want %s", result, tc.want)
			}
		})
	}
}

// evaluateHostile evaluates the charts "app" at the URLs on standard input, and the chart "good" at the URL without a name
// after each of them.
func evaluateHostile(t *testing.T) {
	log.SetOutput(io.Discard) // Helm logs warnings about values
	var urls map[string]string
	if err := json.NewDecoder(os.Stdin).Decode(&urls); err != nil {
		t.Fatal(err)
	}
	good := urls[""]
	delete(urls, "")
	r := resolver(t, chartsource.Options{Wait: time.Hour, FetchTimeout: time.Hour, CacheBytes: 64 << 20})
	results := make(map[string]string, len(urls))
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(8)
	for name, url := range urls {
		group.Go(func() error {
			got := evaluate(t, r, lookup.NewMemory(helmRepository(t, url, "")), ref("app", ""))
			if got := evaluate(t, r, lookup.NewMemory(helmRepository(t, good, "")), ref("good", "")); got != "" {
				return fmt.Errorf("a good chart after %s: %s", name, got)
			}
			mu.Lock()
			defer mu.Unlock()
			results[name] = got
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	output, err := json.Marshal(results)
	if err == nil {
		err = os.WriteFile(os.Getenv("HOSTILE_CHARTS"), output, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// evaluate resolves a chart, validates a few values, and returns errors and missing inputs.
func evaluate(t *testing.T, r *chartsource.Resolver, m validators.Lookup, ref validators.ChartRef) string {
	t.Helper()
	c, presence, err := r.Resolve(t.Context(), m, ref)
	if presence != validators.Present {
		return presence.String() + ": " + text(err)
	}
	inline := object(t, "{a: {a: {a: x}}, b: 1}").Object
	result, err := c.Validate(t.Context(), validators.Values{Namespace: "apps", Inline: inline})
	if err == nil {
		result, err = c.Validate(t.Context(), validators.Values{Namespace: "apps"})
	}
	return text(err) + strings.Join(result.Missing, "; ")
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{n: %d},", i)
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	return b.String()
}

func quotedKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"k%d": {},`, i)
	}
	b.WriteString(`"last": {}`)
	return b.String()
}

// random returns text that compresses badly.
func random(n int) string {
	var b strings.Builder
	x := uint32(n)
	for b.Len() < n {
		x = x*1664525 + 1013904223
		fmt.Fprintf(&b, " .a%x", x)
	}
	return b.String()
}
