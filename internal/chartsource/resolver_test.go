package chartsource_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

const strictSchema = `{"type": "object", "additionalProperties": false, "properties": {"port": {"type": "integer"}, "global": {}}}`

// chartArchive packages a chart of the files, by their path in it.
func chartArchive(t testing.TB, name, version string, files map[string]string) []byte {
	t.Helper()
	all := map[string]string{"Chart.yaml": fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\n", name, version)}
	maps.Copy(all, files)
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		h := &tar.Header{Name: name + "/" + k, Mode: 0o644, Size: int64(len(all[k])), Typeflag: tar.TypeReg}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(all[k])); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// repo is a Helm repository over HTTP that can be slow or require a login.
type repo struct {
	*httptest.Server
	mu       sync.Mutex
	files    map[string][]byte
	delay    time.Duration
	user     string
	other    string
	requests atomic.Int64
	indexes  atomic.Int64
}

func newRepo(t testing.TB) *repo {
	t.Helper()
	r := &repo{files: map[string][]byte{}}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *repo) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	delay, user, other := r.delay, r.user, r.other
	body, ok := r.files[req.URL.Path]
	r.mu.Unlock()
	if strings.HasSuffix(req.URL.Path, "index.yaml") {
		r.indexes.Add(1)
	} else {
		r.requests.Add(1)
	}
	select {
	case <-time.After(delay):
	case <-req.Context().Done():
		return
	}
	if u, p, _ := req.BasicAuth(); user != "" && u+":"+p != user {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if other != "" {
		http.Redirect(w, req, other, http.StatusFound)
		return
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if to, redirect := bytes.CutPrefix(body, []byte("redirect:")); redirect {
		http.Redirect(w, req, string(to), http.StatusFound)
		return
	}
	_, _ = w.Write(body)
}

func (r *repo) set(path string, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[path] = body
}

// redirect sends requests to another address; an empty one ends that.
func (r *repo) redirect(url string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.other = url
}

func (r *repo) slow(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

func (r *repo) auth(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user = user
}

type indexed struct{ version, url, digest string }

func (r *repo) index(name string, versions ...indexed) {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nentries:\n  " + name + ":\n")
	for _, v := range versions {
		fmt.Fprintf(&b, "  - {apiVersion: v2, name: %s, version: %s, urls: [%q], digest: %q}\n", name, v.version, v.url, v.digest)
	}
	r.set("/index.yaml", []byte(b.String()))
}

// publish puts one version of a chart into the repository, at a relative address.
func (r *repo) publish(t testing.TB, name, version string, files map[string]string) {
	t.Helper()
	data := chartArchive(t, name, version, files)
	file := name + "-" + version + ".tgz"
	r.set("/"+file, data)
	r.index(name, indexed{version, file, sha256Of(data)})
}

func sha256Of(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = utiljson.Unmarshal(data, &o.Object) // whole numbers as the API server's client has them
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func helmRepository(t testing.TB, url, more string) *unstructured.Unstructured {
	t.Helper()
	return object(t, fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\nmetadata: {name: repo, namespace: apps}\nspec: {url: %q, interval: 1h%s}", url, more))
}

func ref(chart, version string) validators.ChartRef {
	return validators.ChartRef{
		Source:           validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: "HelmRepository", Namespace: "apps", Name: "repo"},
		ReleaseNamespace: "apps", Chart: chart, Version: version,
	}
}

func resolver(t testing.TB, opts chartsource.Options) *chartsource.Resolver {
	t.Helper()
	r, err := chartsource.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func messages(t testing.TB, c validators.Chart, inline map[string]any) []string {
	t.Helper()
	result, err := c.Validate(t.Context(), validators.Values{Namespace: "apps", Inline: inline})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, v := range result.Violations {
		out = append(out, "at '"+v.Pointer+"': "+v.Message)
	}
	return out
}

func TestResolver_HelmRepository(t *testing.T) {
	const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: login, namespace: apps}\ndata: {username: dXNlcg==, password: cGFzcw==}"
	good := map[string]string{"values.yaml": "port: 1\n", "values.schema.json": strictSchema, "ci/other.yaml": "port: not-a-port\n"}
	for name, tc := range map[string]struct {
		setup   func(t *testing.T, r *repo)
		ref     validators.ChartRef
		spec    string
		objects []string
		// host replaces the repository's own address.
		url  string
		want validators.Presence
		// version is the chart's, when it is present.
		version string
		reason  string
	}{
		"a chart is found by its exact version": {
			setup: func(t *testing.T, r *repo) { r.publish(t, "app", "1.2.3", good) },
			ref:   ref("app", "1.2.3"), want: validators.Present, version: "1.2.3",
		},
		"the highest version within a range is chosen": {
			setup: func(t *testing.T, r *repo) {
				data := chartArchive(t, "app", "1.4.0", good)
				r.set("/app.tgz", data)
				r.index("app", indexed{"1.2.3", "nope", ""}, indexed{"1.4.0", "app.tgz", ""}, indexed{"1.5.0-rc.1", "nope", ""}, indexed{"2.0.0", "nope", ""})
			},
			ref: ref("app", "1.x"), want: validators.Present, version: "1.4.0",
		},
		"without a range pre-releases are skipped": {
			setup: func(t *testing.T, r *repo) {
				data := chartArchive(t, "app", "1.4.0", good)
				r.set("/app.tgz", data)
				r.index("app", indexed{"1.4.0", "app.tgz", ""}, indexed{"2.0.0-rc.1", "nope", ""})
			},
			ref: ref("app", ""), want: validators.Present, version: "1.4.0",
		},
		"an absolute address of the same host is followed": {
			setup: func(t *testing.T, r *repo) {
				data := chartArchive(t, "app", "1.0.0", good)
				r.set("/files/app.tgz", data)
				r.index("app", indexed{"1.0.0", r.URL + "/files/app.tgz", ""})
			},
			ref: ref("app", ""), want: validators.Present, version: "1.0.0",
		},
		"a version that is not in the index is absent": {
			setup: func(t *testing.T, r *repo) { r.publish(t, "app", "1.2.3", good) },
			ref:   ref("app", "2.x"), want: validators.Absent,
		},
		"a chart that is not in the index is absent": {
			setup: func(t *testing.T, r *repo) { r.publish(t, "app", "1.2.3", good) },
			ref:   ref("other", ""), want: validators.Absent,
		},
		"a repository that does not exist is absent": {
			ref:  validators.ChartRef{Source: validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: "HelmRepository", Namespace: "apps", Name: "other"}, Chart: "app"},
			want: validators.Absent,
		},
		"an invalid range is an error": {
			setup: func(t *testing.T, r *repo) { r.publish(t, "app", "1.2.3", good) },
			ref:   ref("app", "one"), reason: `chart app one of HelmRepository apps/repo: chart "app": the version "one" is not a semantic version range`,
		},
		"a repository without an index is an error": {
			ref: ref("app", ""), reason: `chart app * of HelmRepository apps/repo: URL/index.yaml returned 404 Not Found`,
		},
		"an invalid index is an error": {
			setup: func(_ *testing.T, r *repo) { r.set("/index.yaml", []byte("entries: [secret")) },
			ref:   ref("app", ""), reason: `chart app * of HelmRepository apps/repo: the repository's index is not a YAML index of Helm`,
		},
		"an archive with another digest than the index's is an error": {
			setup: func(t *testing.T, r *repo) {
				r.publish(t, "app", "1.2.3", good)
				r.set("/app-1.2.3.tgz", []byte("other"))
				r.index("app", indexed{"1.2.3", "app-1.2.3.tgz", sha256Of([]byte("one"))})
			},
			ref: ref("app", ""), reason: `chart app * of HelmRepository apps/repo: the archive has the digest sha256:` + sha256Of([]byte("other")) + `, want sha256:` + sha256Of([]byte("one")),
		},
		"a chart that is too large is an error": {
			setup: func(_ *testing.T, r *repo) {
				r.set("/app.tgz", make([]byte, 10<<20+1))
				r.index("app", indexed{"1.0.0", "app.tgz", ""})
			},
			ref: ref("app", ""), reason: "chart app * of HelmRepository apps/repo: URL/app.tgz has more than 10485760 bytes",
		},
		"an invalid archive is an error": {
			setup: func(_ *testing.T, r *repo) {
				r.set("/app.tgz", []byte("other"))
				r.index("app", indexed{"1.0.0", "app.tgz", ""})
			},
			ref: ref("app", ""), reason: "chart app * of HelmRepository apps/repo: reading the chart archive: it is not a gzip file: unexpected EOF",
		},
		"a redirect to a loopback address of another port is refused": {
			setup: func(_ *testing.T, r *repo) { r.set("/index.yaml", []byte("redirect:http://127.0.0.1:1/index.yaml")) },
			ref:   ref("app", ""), reason: "chart app * of HelmRepository apps/repo: fetching http://127.0.0.1:1/index.yaml: dial tcp 127.0.0.1:1: refused: 127.0.0.1 is a link-local or loopback address",
		},
		"a metadata service named in an index is refused": {
			setup: func(_ *testing.T, r *repo) { r.index("app", indexed{"1.0.0", "http://169.254.169.254/latest", ""}) },
			ref:   ref("app", ""), reason: "chart app * of HelmRepository apps/repo: fetching http://169.254.169.254/latest: dial tcp 169.254.169.254:80: refused: 169.254.169.254 is a link-local or loopback address",
		},
		"a file named in an index is refused": {
			setup: func(_ *testing.T, r *repo) { r.index("app", indexed{"1.0.0", "file:///etc/passwd", ""}) },
			ref:   ref("app", ""), reason: "chart app * of HelmRepository apps/repo: refused: file:///etc/passwd is not an http or https URL",
		},
		"endless redirects are not followed": {
			setup: func(_ *testing.T, r *repo) { r.set("/index.yaml", []byte("redirect:/index.yaml")) },
			ref:   ref("app", ""), reason: "chart app * of HelmRepository apps/repo: URL/index.yaml redirects more than 5 times",
		},
		"an unreachable repository is an error": {
			url: "http://127.0.0.1:1", ref: ref("app", ""),
			reason: "chart app * of HelmRepository apps/repo: http://127.0.0.1:1/index.yaml cannot be fetched",
		},
		"credentials of a Secret are sent": {
			setup: func(t *testing.T, r *repo) { r.publish(t, "app", "1.2.3", good); r.auth("user:pass") },
			spec:  ", secretRef: {name: login}", objects: []string{secret}, ref: ref("app", ""), want: validators.Present, version: "1.2.3",
		},
		"wrong credentials are reported": {
			setup: func(t *testing.T, r *repo) { r.publish(t, "app", "1.2.3", good); r.auth("user:other") },
			spec:  ", secretRef: {name: login}", objects: []string{secret}, ref: ref("app", ""),
			reason: "chart app * of HelmRepository apps/repo: URL/index.yaml returned 401 Unauthorized: the source's credentials are missing or rejected",
		},
		"a Secret that does not exist is named": {
			spec: ", secretRef: {name: login}", ref: ref("app", ""), reason: "HelmRepository apps/repo: its Secret apps/login does not exist",
		},
		"missing values files are an error": {
			setup: func(t *testing.T, r *repo) { r.publish(t, "app", "1.2.3", good) },
			ref:   withFiles(ref("app", ""), false, "values.yaml", "nope.yaml"), reason: "chart app * of HelmRepository apps/repo: it has no values file nope.yaml",
		},
		"missing values files are ignored if the reference allows it": {
			setup: func(t *testing.T, r *repo) { r.publish(t, "app", "1.2.3", good) },
			ref:   withFiles(ref("app", ""), true, "values.yaml", "nope.yaml"), want: validators.Present, version: "1.2.3",
		},
		"a source of an unsupported kind is an error": {
			ref:    validators.ChartRef{Source: validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: "Widget", Namespace: "apps", Name: "repo"}, Chart: "app"},
			reason: "sources of kind Widget are not supported",
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := newRepo(t)
			if tc.setup != nil {
				tc.setup(t, server)
			}
			url := tc.url
			if url == "" {
				url = server.URL
			}
			m := lookup.NewMemory(helmRepository(t, url, tc.spec))
			for _, o := range tc.objects {
				m.Add(object(t, o))
			}
			c, got, err := resolver(t, chartsource.Options{Wait: time.Minute}).Resolve(t.Context(), m, tc.ref)
			if got != tc.want || strings.ReplaceAll(text(err), server.URL, "URL") != tc.reason {
				t.Fatalf("Resolve = %v, %v; want %v, %q", got, err, tc.want, tc.reason)
			}
			if (c != nil) != (tc.want == validators.Present) {
				t.Fatalf("chart %v with %v", c, got)
			}
			if c == nil {
				return
			}
			if c.Version() != tc.version || c.Name() != "app" {
				t.Errorf("chart %s %s, want app %s", c.Name(), c.Version(), tc.version)
			}
			if got := messages(t, c, map[string]any{"prot": int64(1)}); len(got) != 1 || got[0] != "at '': additional property 'prot' not allowed" {
				t.Errorf("violations %q", got)
			}
		})
	}
}

func withFiles(r validators.ChartRef, ignore bool, files ...string) validators.ChartRef {
	r.ValuesFiles, r.IgnoreMissingValuesFiles = files, ignore
	return r
}

func TestResolver_ValuesFiles(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", map[string]string{
		"values.yaml": "port: 1\n", "ci/a.yaml": "port: a\n", "ci/b.yaml": "{}\n", "values.schema.json": strictSchema,
	})
	r := resolver(t, chartsource.Options{Wait: time.Minute})
	m := lookup.NewMemory(helmRepository(t, server.URL, ""))
	for name, tc := range map[string]struct {
		files []string
		want  string
	}{
		"the chart's own are valid":     {nil, ""},
		"a file replaces them":          {[]string{"ci/a.yaml"}, "at '/port': got string, want integer"},
		"files are merged in order":     {[]string{"ci/a.yaml", "values.yaml"}, ""},
		"an empty file changes nothing": {[]string{"values.yaml", "./ci/b.yaml"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := r.Resolve(t.Context(), m, withFiles(ref("app", ""), false, tc.files...))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(messages(t, c, nil), "; "); got != tc.want {
				t.Errorf("violations %q, want %q", got, tc.want)
			}
		})
	}
}

func TestResolver_FetchesOnceForConcurrentLookups(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	server.slow(20 * time.Millisecond)
	r := resolver(t, chartsource.Options{Wait: time.Minute})
	m := lookup.NewMemory(helmRepository(t, server.URL, ""))
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if _, got, err := r.Resolve(t.Context(), m, ref("app", "1.x")); got != validators.Present {
				t.Errorf("Resolve = %v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if server.requests.Load() != 1 || server.indexes.Load() != 1 {
		t.Errorf("%d downloads of the chart and %d of the index, want one of each", server.requests.Load(), server.indexes.Load())
	}
}

func TestResolver_WaitsForSlowSources(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	server.slow(200 * time.Millisecond)
	m := lookup.NewMemory(helmRepository(t, server.URL, ""))
	for name, tc := range map[string]struct {
		wait   time.Duration
		ctx    func(context.Context) context.Context
		reason string
	}{
		"a review that does not wait": {0, nil, "chart app 1.x of HelmRepository apps/repo is still being fetched, and reviews do not wait for it"},
		"a wait that is too short":    {time.Millisecond, nil, "chart app 1.x of HelmRepository apps/repo is still being fetched after 1ms"},
		"a budget that is used up":    {time.Minute, func(ctx context.Context) context.Context { return chartsource.WithBudget(ctx, 0) }, "chart app 1.x of HelmRepository apps/repo is still being fetched, and reviews do not wait for it"},
	} {
		t.Run(name, func(t *testing.T) {
			seen := &observer{fetched: make(chan chartsource.Outcome, 1)}
			r := resolver(t, chartsource.Options{Wait: tc.wait, Observer: seen})
			ctx := t.Context()
			if tc.ctx != nil {
				ctx = tc.ctx(ctx)
			}
			if _, got, err := r.Resolve(ctx, m, ref("app", "1.x")); got != validators.Unknown || text(err) != tc.reason {
				t.Fatalf("Resolve = %v, %v; want unknown, %s", got, err, tc.reason)
			}
			// The fetch continues in the background, and the next review finds the chart.
			if outcome := <-seen.fetched; outcome != chartsource.OutcomeFetched {
				t.Fatalf("the fetch ended with %s", outcome)
			}
			if _, got, err := r.Resolve(ctx, m, ref("app", "1.x")); got != validators.Present {
				t.Errorf("Resolve after the fetch = %v, %v", got, err)
			}
		})
	}
}

type observer struct {
	fetched chan chartsource.Outcome
	mu      sync.Mutex
	lookups []chartsource.Outcome
	bytes   atomic.Int64
}

func (o *observer) Resolved(_ string, outcome chartsource.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lookups = append(o.lookups, outcome)
}

func (o *observer) Fetched(_ string, outcome chartsource.Outcome, _ time.Duration) {
	if o.fetched != nil {
		o.fetched <- outcome
	}
}

func (o *observer) Cached(_ int, bytes int64) { o.bytes.Store(bytes) }

func TestResolver_UsesStaleCharts(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	m := lookup.NewMemory(helmRepository(t, server.URL, ""))
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	pass := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	seen := &observer{fetched: make(chan chartsource.Outcome, 1)}
	r := resolver(t, chartsource.Options{Wait: time.Minute, TTL: time.Minute, Clock: clock, Observer: seen})
	resolve := func(want string) {
		t.Helper()
		c, got, err := r.Resolve(t.Context(), m, ref("app", "1.x"))
		if got != validators.Present || c.Version() != want {
			t.Fatalf("Resolve = %v, %v, %v; want version %s", c, got, err, want)
		}
	}
	resolve("1.0.0")
	<-seen.fetched
	server.publish(t, "app", "1.1.0", map[string]string{"values.schema.json": strictSchema})
	pass(30 * time.Second)
	resolve("1.0.0") // still fresh
	pass(time.Minute)
	resolve("1.0.0") // stale: the old one is used while the new one is fetched
	if outcome := <-seen.fetched; outcome != chartsource.OutcomeFetched {
		t.Fatalf("the fetch ended with %s", outcome)
	}
	resolve("1.1.0")
	// The chart remains when its source does not respond.
	server.Close()
	pass(2 * time.Minute)
	resolve("1.1.0")
	if outcome := <-seen.fetched; outcome != chartsource.OutcomeError {
		t.Fatalf("the fetch from a closed server ended with %s", outcome)
	}
	resolve("1.1.0")
	want := []chartsource.Outcome{"fetched", "hit", "stale", "hit", "stale", "hit"}
	if !slices.Equal(seen.lookups, want) {
		t.Errorf("lookups %v, want %v", seen.lookups, want)
	}
}

func TestResolver_CachesFailures(t *testing.T) {
	server := newRepo(t)
	m := lookup.NewMemory(helmRepository(t, server.URL, ""))
	r := resolver(t, chartsource.Options{Wait: time.Minute})
	for range 5 {
		if _, got, err := r.Resolve(t.Context(), m, ref("app", "1.x")); got != validators.Unknown || err == nil {
			t.Fatalf("Resolve = %v, %v", got, err)
		}
	}
	if n := server.indexes.Load(); n != 1 {
		t.Errorf("the repository received %d requests, want 1", n)
	}
}

func TestResolver_FetchesEvictedChartsAgain(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	m := lookup.NewMemory(helmRepository(t, server.URL, ""))
	r := resolver(t, chartsource.Options{Wait: time.Minute, CacheBytes: 1})
	for range 2 {
		for _, files := range [][]string{nil, {"values.yaml"}} { // two charts, while the cache has room for one
			if _, got, err := r.Resolve(t.Context(), m, withFiles(ref("app", "1.x"), true, files...)); got != validators.Present {
				t.Fatalf("Resolve = %v, %v", got, err)
			}
		}
	}
	if n := server.requests.Load(); n != 4 {
		t.Errorf("the chart was read %d times, want 4", n)
	}
}

func TestResolver_ReadsChartsFromDiskAfterARestart(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema, "x.yaml": "port: wrong"})
	m := lookup.NewMemory(helmRepository(t, server.URL, ""))
	dir := t.TempDir()
	before := resolver(t, chartsource.Options{Wait: time.Minute, CacheDir: dir})
	if _, got, err := before.Resolve(t.Context(), m, withFiles(ref("app", "1.x"), true, "x.yaml")); got != validators.Present {
		t.Fatal(got, err)
	}
	before.Close()
	server.auth("nobody:nothing")
	seen := &observer{fetched: make(chan chartsource.Outcome, 1)}
	after := resolver(t, chartsource.Options{Wait: time.Minute, CacheDir: dir, Observer: seen})
	c, got, err := after.Resolve(t.Context(), m, withFiles(ref("app", "1.x"), true, "x.yaml"))
	if got != validators.Present || <-seen.fetched != chartsource.OutcomeDisk {
		t.Fatal(got, err)
	}
	if got := strings.Join(messages(t, c, nil), "; "); got != "at '/port': got string, want integer" {
		t.Errorf("violations %q", got)
	}
	// The next review starts a fetch from the source. The chart remains when that fails.
	for range 2 {
		if _, got, err := after.Resolve(t.Context(), m, withFiles(ref("app", "1.x"), true, "x.yaml")); got != validators.Present {
			t.Fatal(got, err)
		}
	}
	if outcome := <-seen.fetched; outcome != chartsource.OutcomeError {
		t.Errorf("the fetch ended with %s", outcome)
	}
	if _, got, _ := after.Resolve(t.Context(), m, ref("app", "1.x")); got != validators.Unknown {
		t.Errorf("a reference without a cached chart is %v", got)
	}
	<-seen.fetched
}

func TestResolver_Close(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", nil)
	server.slow(time.Hour)
	m := lookup.NewMemory(helmRepository(t, server.URL, ""))
	r := resolver(t, chartsource.Options{Wait: time.Millisecond})
	if _, got, _ := r.Resolve(t.Context(), m, ref("app", "")); got != validators.Unknown {
		t.Fatalf("Resolve = %v", got)
	}
	r.Close() // cancels the fetch, which would take an hour
	if _, got, err := r.Resolve(t.Context(), m, ref("other", "")); got != validators.Unknown || text(err) != "the server is shutting down" {
		t.Errorf("Resolve after Close = %v, %v", got, err)
	}
}

func TestResolver_TLS(t *testing.T) {
	inner := newRepo(t)
	inner.publish(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	server := httptest.NewTLSServer(http.HandlerFunc(inner.serve))
	t.Cleanup(server.Close)
	server.Config.ErrorLog = nil
	authority := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: ca, namespace: apps}\ndata: {ca.crt: " + authority + "}"
	for name, tc := range map[string]struct {
		spec, secret string
		want         validators.Presence
		reason       string
	}{
		"a certificate that is not trusted is rejected":           {"", "", validators.Unknown, "/index.yaml cannot be fetched"},
		"the authority of certSecretRef is trusted":               {", certSecretRef: {name: ca}", secret, validators.Present, ""},
		"an invalid authority is an error that does not quote it": {", certSecretRef: {name: ca}", strings.Replace(secret, authority, "c2VjcmV0", 1), validators.Unknown, "HelmRepository apps/repo: the certificate authority contains no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			m := lookup.NewMemory(helmRepository(t, server.URL, tc.spec))
			if tc.secret != "" {
				m.Add(object(t, tc.secret))
			}
			_, got, err := resolver(t, chartsource.Options{Wait: time.Minute}).Resolve(t.Context(), m, ref("app", ""))
			if got != tc.want || !strings.Contains(text(err), tc.reason) {
				t.Errorf("Resolve = %v, %v; want %v, %s", got, err, tc.want, tc.reason)
			}
		})
	}
}

// TestResolver_DigestOfAnotherTenant: who knows the digest of another tenant's chart does not get that chart by claiming
// the digest in an index.
func TestResolver_DigestOfAnotherTenant(t *testing.T) {
	victim, attacker := newRepo(t), newRepo(t)
	victim.publish(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	r := resolver(t, chartsource.Options{Wait: time.Minute})
	of := func(server *repo) *lookup.Memory { return lookup.NewMemory(helmRepository(t, server.URL, "")) }
	if _, presence, err := r.Resolve(t.Context(), of(victim), ref("app", "")); presence != validators.Present {
		t.Fatalf("Resolve = %v, %v", presence, err)
	}
	data := chartArchive(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	attacker.index("app", indexed{"1.0.0", "missing.tgz", sha256Of(data)})
	c, presence, err := r.Resolve(t.Context(), of(attacker), ref("app", ""))
	if presence != validators.Unknown || c != nil || !strings.Contains(text(err), "missing.tgz returned 404") {
		t.Errorf("Resolve = %v, %v, %v, want the error of the archive", c, presence, err)
	}
}
