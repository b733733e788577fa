package chartsource_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ociregistry "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/chartsource/registry"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// ociServer is an OCI registry, with a login when one is given.
func ociServer(t testing.TB, login string, tls bool) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	var blobs atomic.Int64
	inner := ociregistry.New(ociregistry.Logger(log.New(io.Discard, "", 0)))
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if u, p, _ := req.BasicAuth(); login != "" && u+":"+p != login {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
			blobs.Add(1)
		}
		inner.ServeHTTP(w, req)
	})
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server, &blobs
}

type loginTransport struct {
	login string
	next  http.RoundTripper
}

func (l loginTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if u, p, ok := strings.Cut(l.login, ":"); ok {
		req.SetBasicAuth(u, p)
	}
	return l.next.RoundTrip(req)
}

// push puts a chart into a registry as Helm does, and returns the manifest's digest.
func push(t testing.TB, server *httptest.Server, login, repository, tag, mediaType string, data []byte) string {
	t.Helper()
	host := server.URL[strings.Index(server.URL, "://")+3:]
	repo, err := remote.NewRepository(host + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = strings.HasPrefix(server.URL, "http://")
	repo.Client = &http.Client{Transport: loginTransport{login, server.Client().Transport}}
	blob := func(mediaType string, data []byte) ocispec.Descriptor {
		d := content.NewDescriptorFromBytes(mediaType, data)
		if err := repo.Push(t.Context(), d, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	manifest.Config = blob("application/vnd.cncf.helm.config.v1+json", []byte("{}"))
	manifest.Layers = []ocispec.Descriptor{blob("application/octet-stream", []byte("signature")), blob(mediaType, data)}
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	d := content.NewDescriptorFromBytes(ocispec.MediaTypeImageManifest, text)
	if err := repo.PushReference(t.Context(), d, bytes.NewReader(text), tag); err != nil {
		t.Fatal(err)
	}
	return d.Digest.String()
}

func TestResolver_OCI(t *testing.T) {
	chartFiles := map[string]string{"values.schema.json": strictSchema}
	plain, _ := ociServer(t, "", false)
	private, _ := ociServer(t, "user:pass", false)
	secure, _ := ociServer(t, "", true)
	first := push(t, plain, "", "charts/app", "1.0.0", registry.ChartLayer, chartArchive(t, "app", "1.0.0", chartFiles))
	push(t, plain, "", "charts/app", "1.2.0_build.5", registry.ChartLayer, chartArchive(t, "app", "1.2.0+build.5", chartFiles))
	push(t, plain, "", "charts/app", "2.0.0-rc.1", registry.ChartLayer, chartArchive(t, "app", "2.0.0-rc.1", chartFiles))
	push(t, plain, "", "charts/app", "latest", registry.ChartLayer, chartArchive(t, "app", "9.9.9", chartFiles))
	push(t, plain, "", "charts/other", "1.0.0", "application/x-other", chartArchive(t, "app", "1.0.0", chartFiles))
	push(t, private, "user:pass", "charts/app", "1.0.0", registry.ChartLayer, chartArchive(t, "app", "1.0.0", chartFiles))
	push(t, secure, "", "charts/app", "1.0.0", registry.ChartLayer, chartArchive(t, "app", "1.0.0", chartFiles))

	oci := func(s *httptest.Server) string { return "oci://" + s.Listener.Addr().String() + "/charts" }
	helm := func(s *httptest.Server, more string) string {
		return fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\nmetadata: {name: repo, namespace: apps}\nspec: {type: oci, url: %q%s}", oci(s), more)
	}
	repository := func(s *httptest.Server, more string) string {
		return fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: OCIRepository\nmetadata: {name: repo, namespace: apps}\nspec: {url: %q, insecure: true%s}", oci(s)+"/app", more)
	}
	byRef := validators.ChartRef{Source: validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: "OCIRepository", Namespace: "apps", Name: "repo"}, ReleaseNamespace: "apps"}
	config := fmt.Sprintf(`{"auths": {"https://%s/v1": {"auth": %q}, "example.com": {"username": "x"}}}`, private.Listener.Addr(), base64.StdEncoding.EncodeToString([]byte("user:pass")))
	login := "apiVersion: v1\nkind: Secret\nmetadata: {name: login, namespace: apps}\ndata: {.dockerconfigjson: " + base64.StdEncoding.EncodeToString([]byte(config)) + "}"
	basic := "apiVersion: v1\nkind: Secret\nmetadata: {name: login, namespace: apps}\nstringData: {username: user, password: pass}"
	authority := "apiVersion: v1\nkind: Secret\nmetadata: {name: ca, namespace: apps}\ndata: {ca.crt: " + base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})) + "}"

	for name, tc := range map[string]struct {
		source  string
		secrets []string
		ref     validators.ChartRef
		want    validators.Presence
		version string
		reason  string
	}{
		"an exact version is a tag":                {source: helm(plain, ", insecure: true"), ref: ref("app", "1.0.0"), want: validators.Present, version: "1.0.0"},
		"a plus of a version is an underscore":     {source: helm(plain, ", insecure: true"), ref: ref("app", "1.2.0+build.5"), want: validators.Present, version: "1.2.0+build.5"},
		"a range selects among the tags":           {source: helm(plain, ", insecure: true"), ref: ref("app", "1.x"), want: validators.Present, version: "1.2.0+build.5"},
		"without a range no pre-release":           {source: helm(plain, ", insecure: true"), ref: ref("app", ""), want: validators.Present, version: "1.2.0+build.5"},
		"a tag that is not there":                  {source: helm(plain, ", insecure: true"), ref: ref("app", "3.0.0"), want: validators.Absent},
		"a range without a tag":                    {source: helm(plain, ", insecure: true"), ref: ref("app", "3.x"), want: validators.Absent},
		"a chart that is not there":                {source: helm(plain, ", insecure: true"), ref: ref("nope", "1.x"), want: validators.Absent},
		"a login from a Docker configuration":      {source: helm(private, ", insecure: true, secretRef: {name: login}"), secrets: []string{login}, ref: ref("app", "1.0.0"), want: validators.Present, version: "1.0.0"},
		"a login from a user name and password":    {source: helm(private, ", insecure: true, secretRef: {name: login}"), secrets: []string{basic}, ref: ref("app", "1.x"), want: validators.Present, version: "1.0.0"},
		"a registry that requires a login":         {source: helm(private, ", insecure: true"), ref: ref("app", "1.0.0"), reason: "the source's credentials are missing or rejected"},
		"a certificate of an authority":            {source: helm(secure, ", certSecretRef: {name: ca}"), secrets: []string{authority}, ref: ref("app", "1.0.0"), want: validators.Present, version: "1.0.0"},
		"a certificate that is not trusted":        {source: helm(secure, ""), ref: ref("app", "1.0.0"), reason: " cannot be fetched"},
		"an OCIRepository without a ref is latest": {source: repository(plain, ""), ref: byRef, want: validators.Present, version: "9.9.9"},
		"an OCIRepository by tag":                  {source: repository(plain, ", ref: {tag: 1.0.0}"), ref: byRef, want: validators.Present, version: "1.0.0"},
		"an OCIRepository by range":                {source: repository(plain, ", ref: {semver: '>=1.0.0-0', semverFilter: '-rc'}"), ref: byRef, want: validators.Present, version: "2.0.0-rc.1"},
		"an OCIRepository with a complex filter":   {source: repository(plain, ", ref: {semver: '>=1.0.0-0', semverFilter: '(?:"+strings.Repeat("ab", 1500)+"){1000}'}"), ref: byRef, reason: "OCIRepository apps/repo: spec.ref.semverFilter: the pattern has more than 10000 states: too complex"},
		"an OCIRepository by digest":               {source: repository(plain, ", ref: {digest: '"+first+"'}"), ref: byRef, want: validators.Present, version: "1.0.0"},
		"an OCIRepository with a layer selector":   {source: repository(plain, ", ref: {tag: 1.0.0}, layerSelector: {mediaType: application/x-nope}"), ref: byRef, reason: "chart app 1.0.0 of OCIRepository apps/repo: the manifest of 1.0.0 has no layer of type application/x-nope"},
		"an OCIRepository's tag that is not there": {source: repository(plain, ", ref: {tag: nope}"), ref: byRef, want: validators.Absent},
		"an URL of no registry":                    {source: strings.Replace(repository(plain, ""), oci(plain)+"/app", "https://example.com/app", 1), ref: byRef, reason: "chart app latest of OCIRepository apps/repo: its URL is not an oci:// URL with a registry and a repository"},
	} {
		t.Run(name, func(t *testing.T) {
			m := lookup.NewMemory(object(t, tc.source))
			for _, s := range tc.secrets {
				m.Add(object(t, s))
			}
			c, got, err := resolver(t, chartsource.Options{Wait: time.Minute}).Resolve(t.Context(), m, tc.ref)
			if got != tc.want || !strings.Contains(text(err), tc.reason) || (err != nil) != (tc.reason != "") {
				t.Fatalf("Resolve = %v, %v; want %v, %q", got, err, tc.want, tc.reason)
			}
			if c != nil && c.Version() != tc.version {
				t.Errorf("version %s, want %s", c.Version(), tc.version)
			}
		})
	}
	t.Run("a layer that is known is not read again", func(t *testing.T) {
		server, blobs := ociServer(t, "", false)
		data := chartArchive(t, "app", "1.0.0", chartFiles)
		push(t, server, "", "charts/app", "1.0.0", registry.ChartLayer, data)
		push(t, server, "", "charts/app", "1.0.1", registry.ChartLayer, data)
		r := resolver(t, chartsource.Options{Wait: time.Minute})
		m := lookup.NewMemory(object(t, helm(server, ", insecure: true")))
		for _, v := range []string{"1.0.0", "1.0.1"} {
			if _, got, err := r.Resolve(t.Context(), m, ref("app", v)); got != validators.Present {
				t.Fatal(got, err)
			}
		}
		if n := blobs.Load(); n != 1 {
			t.Errorf("the layer was read %d times", n)
		}
	})
}

// tarball is the artifact of a Git repository or a bucket: files from the root.
func tarball(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for name, body := range files {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}
		if target, link := strings.CutPrefix(body, "link:"); link {
			h.Typeflag, h.Linkname, h.Size, body = tar.TypeSymlink, target, 0, ""
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, body); err != nil {
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

// status is an object's status with an artifact.
func status(url string, data []byte, generation int) string {
	return fmt.Sprintf("\nstatus: {observedGeneration: %d, artifact: {url: %q, digest: %q, revision: main}}", generation, url, digest.FromBytes(data))
}

func TestResolver_SourceArtifacts(t *testing.T) {
	server := newRepo(t)
	data := tarball(t, map[string]string{
		"charts/app/Chart.yaml":         "apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies: [{name: db, version: 1.x, repository: 'https://example.com'}]\n",
		"charts/app/values.schema.json": strictSchema,
		"charts/app/templates/link":     "link:/etc/passwd",
		"charts/app.tgz":                string(chartArchive(t, "app", "2.0.0", map[string]string{"values.schema.json": strictSchema})),
		"charts/bad/Chart.yaml":         "link:/etc/passwd",
		"env/prod.yaml":                 "port: wrong\n",
		"elsewhere":                     "link:/etc/passwd",
	})
	server.set("/repo.tar.gz", data)
	source := func(kind string, st string) string {
		return "apiVersion: source.toolkit.fluxcd.io/v1\nkind: " + kind + "\nmetadata: {name: repo, namespace: apps, generation: 1}\nspec: {url: x}" + st
	}
	byPath := func(kind, path string, files ...string) validators.ChartRef {
		return validators.ChartRef{Source: validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: kind, Namespace: "apps", Name: "repo"}, ReleaseNamespace: "apps", Chart: path, ValuesFiles: files}
	}
	good := status(server.URL+"/repo.tar.gz", data, 1)
	for name, tc := range map[string]struct {
		source  string
		ref     validators.ChartRef
		opts    chartsource.Options
		want    validators.Presence
		version string
		result  string
		reason  string
	}{
		"a chart in a Git repository":             {source("GitRepository", good), byPath("GitRepository", "./charts/app"), chartsource.Options{}, validators.Present, "1.0.0", "missing subchart db, which Flux fetches when it packages the chart", ""},
		"a packaged chart in a bucket":            {source("Bucket", good), byPath("Bucket", "charts/app.tgz"), chartsource.Options{}, validators.Present, "2.0.0", "", ""},
		"values files are those of the source":    {source("GitRepository", good), byPath("GitRepository", "charts/app", "./env/prod.yaml"), chartsource.Options{}, validators.Present, "1.0.0", "at '/port': got string, want integer; missing subchart db, which Flux fetches when it packages the chart", ""},
		"a values file that the source has not":   {source("GitRepository", good), byPath("GitRepository", "charts/app", "values.yaml"), chartsource.Options{}, validators.Unknown, "", "", "chart charts/app of GitRepository apps/repo: it has no values file values.yaml"},
		"a path without a chart":                  {source("GitRepository", good), byPath("GitRepository", "charts/nope"), chartsource.Options{}, validators.Absent, "", "", ""},
		"a chart that is a link":                  {source("GitRepository", good), byPath("GitRepository", "charts/bad"), chartsource.Options{}, validators.Unknown, "", "", `chart charts/bad of GitRepository apps/repo: reading the source's archive: "charts/bad/Chart.yaml" is a link, a device or outside of the source`},
		"a path that leads out stays inside":      {source("GitRepository", good), byPath("GitRepository", "../../charts/app.tgz"), chartsource.Options{}, validators.Present, "2.0.0", "", ""},
		"a source without an artifact":            {source("GitRepository", ""), byPath("GitRepository", "charts/app"), chartsource.Options{}, validators.Unknown, "", "", "GitRepository apps/repo: it has no artifact yet"},
		"an artifact of the object as it was":     {source("GitRepository", status(server.URL+"/repo.tar.gz", data, 2)), byPath("GitRepository", "charts/app"), chartsource.Options{}, validators.Unknown, "", "", "GitRepository apps/repo: it has no artifact yet"},
		"an artifact with another digest":         {source("GitRepository", status(server.URL+"/repo.tar.gz", []byte("x"), 1)), byPath("GitRepository", "charts/app"), chartsource.Options{}, validators.Unknown, "", "", "chart charts/app of GitRepository apps/repo: the artifact has the digest " + digest.FromBytes(data).String() + ", want " + digest.FromString("x").String()},
		"another namespace where that is blocked": {source("GitRepository", good), validators.ChartRef{Source: byPath("GitRepository", "").Source, ReleaseNamespace: "other", Chart: "charts/app"}, chartsource.Options{NoCrossNamespace: true}, validators.Unknown, "", "", "GitRepository apps/repo is in another namespace, and cross-namespace references are denied"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.opts.Wait = time.Minute
			c, got, err := resolver(t, tc.opts).Resolve(t.Context(), lookup.NewMemory(object(t, tc.source)), tc.ref)
			if got != tc.want || text(err) != tc.reason {
				t.Fatalf("Resolve = %v, %v; want %v, %q", got, err, tc.want, tc.reason)
			}
			if c == nil {
				return
			}
			result, err := c.Validate(t.Context(), validators.Values{Namespace: "apps"})
			if err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, v := range result.Violations {
				texts = append(texts, "at '"+v.Pointer+"': "+v.Message)
			}
			for _, m := range result.Missing {
				texts = append(texts, "missing "+m)
			}
			if c.Version() != tc.version || strings.Join(texts, "; ") != tc.result {
				t.Errorf("version %s, result %q; want %s, %q", c.Version(), strings.Join(texts, "; "), tc.version, tc.result)
			}
		})
	}
}

// helm-controller reads an ExternalArtifact as a packaged chart: in a directory of its own.
func TestResolver_ExternalArtifact(t *testing.T) {
	server := newRepo(t)
	for name, tc := range map[string]struct {
		data   []byte
		want   validators.Presence
		reason string
	}{
		"a packaged chart":             {chartArchive(t, "app", "3.0.0", nil), validators.Present, ""},
		"a chart without a directory":  {tarball(t, map[string]string{"Chart.yaml": "apiVersion: v2\nname: app\nversion: 3.0.0\n"}), validators.Unknown, "reading the chart"},
		"a directory without a chart":  {tarball(t, map[string]string{"app/values.yaml": "a: 1\n"}), validators.Unknown, "reading the chart"},
		"a chart deep in a repository": {tarball(t, map[string]string{"charts/app/Chart.yaml": "apiVersion: v2\nname: app\nversion: 3.0.0\n"}), validators.Unknown, "reading the chart"},
	} {
		t.Run(name, func(t *testing.T) {
			path := "/" + strings.ReplaceAll(name, " ", "-")
			server.set(path, tc.data)
			m := lookup.NewMemory(object(t, "apiVersion: source.toolkit.fluxcd.io/v1\nkind: ExternalArtifact\nmetadata: {name: repo, namespace: apps, generation: 1}"+
				status(server.URL+path, tc.data, 1)))
			from := validators.ChartRef{
				Source:           validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: "ExternalArtifact", Namespace: "apps", Name: "repo"},
				ReleaseNamespace: "apps",
			}
			c, got, err := resolver(t, chartsource.Options{Wait: time.Minute}).Resolve(t.Context(), m, from)
			if got != tc.want || !strings.Contains(text(err), tc.reason) {
				t.Fatalf("Resolve = %v, %v; want %v, %q", got, err, tc.want, tc.reason)
			}
			if got == validators.Present && c.Version() != "3.0.0" {
				t.Errorf("version %s", c.Version())
			}
		})
	}
}

// Of the artifact of a source only the chart's files are held in memory: eight of the largest arrive at the same time.
func TestResolver_LargeSourceArtifact(t *testing.T) {
	const size = 48 << 20
	large := make([]byte, size)
	if _, err := rand.NewChaCha8([32]byte{}).Read(large); err != nil {
		t.Fatal(err)
	}
	server := newRepo(t)
	data := tarball(t, map[string]string{"docs/film": string(large), "app/Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n"})
	server.set("/repo.tar.gz", data)
	m := lookup.NewMemory(object(t, "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: repo, namespace: apps}\nspec: {}"+
		status(server.URL+"/repo.tar.gz", data, 0)))
	from := validators.ChartRef{Source: validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: "GitRepository", Namespace: "apps", Name: "repo"}, Chart: "app"}
	r := resolver(t, chartsource.Options{Wait: time.Minute})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, got, err := r.Resolve(t.Context(), m, from); got != validators.Present || err != nil {
		t.Fatalf("Resolve = %v, %v", got, err)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > size/4 {
		t.Errorf("an artifact of %d MiB took %d MiB", len(data)>>20, allocated>>20)
	}
}

// The artifact of the release's HelmChart takes precedence if it was packaged for the same reference.
func TestResolver_HelmChartArtifacts(t *testing.T) {
	packaged := newRepo(t)
	data := chartArchive(t, "app", "1.5.0", map[string]string{"values.schema.json": strictSchema})
	packaged.set("/app.tgz", data)
	upstream := newRepo(t)
	upstream.publish(t, "app", "1.9.0", nil)
	helmChart := func(spec, st string) string {
		return "apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmChart\nmetadata: {name: apps-web, namespace: apps, generation: 1}\nspec: {chart: app, version: 1.x, sourceRef: {kind: HelmRepository, name: repo}" + spec + "}" + st
	}
	good := status(packaged.URL+"/app.tgz", data, 1)
	web := ref("app", "1.x")
	web.ReleaseName = "web"
	byChart := validators.ChartRef{Source: validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: "HelmChart", Namespace: "apps", Name: "apps-web"}, ReleaseNamespace: "apps"}
	for name, tc := range map[string]struct {
		objects []string
		ref     validators.ChartRef
		want    validators.Presence
		version string
	}{
		"the release's HelmChart has it":                {[]string{helmChart("", good)}, web, validators.Present, "1.5.0"},
		"a HelmChart for other values files does not":   {[]string{helmChart(", valuesFiles: [x.yaml]", good)}, web, validators.Present, "1.9.0"},
		"a HelmChart without an artifact does not":      {[]string{helmChart("", "")}, web, validators.Present, "1.9.0"},
		"a HelmChart with a broken artifact does not":   {[]string{helmChart("", status(packaged.URL+"/app.tgz", []byte("x"), 1))}, web, validators.Present, "1.9.0"},
		"a HelmChart that is out of reach does not":     {[]string{helmChart("", status("http://127.0.0.1:1/app.tgz", data, 1))}, web, validators.Present, "1.9.0"},
		"a release of another name asks the repository": {[]string{helmChart("", good)}, ref("app", "1.x"), validators.Present, "1.9.0"},
		"a chartRef to a HelmChart":                     {[]string{helmChart("", good)}, byChart, validators.Present, "1.5.0"},
		"a chartRef to one without an artifact":         {[]string{helmChart("", "")}, byChart, validators.Present, "1.9.0"},
		"a chartRef to one that is not there":           {nil, byChart, validators.Absent, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := lookup.NewMemory(helmRepository(t, upstream.URL, ""))
			for _, o := range tc.objects {
				m.Add(object(t, o))
			}
			c, got, err := resolver(t, chartsource.Options{Wait: time.Minute}).Resolve(t.Context(), m, tc.ref)
			if got != tc.want || err != nil {
				t.Fatalf("Resolve = %v, %v; want %v", got, err, tc.want)
			}
			if c != nil && c.Version() != tc.version {
				t.Errorf("version %s, want %s", c.Version(), tc.version)
			}
		})
	}
}

func TestResolver_FetchesNewArtifactsInTheBackground(t *testing.T) {
	server := newRepo(t)
	publish := func(m *lookup.Memory, version string) {
		data := tarball(t, map[string]string{"app/Chart.yaml": "apiVersion: v2\nname: app\nversion: " + version + "\n"})
		server.set("/"+version, data)
		m.Add(object(t, "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: repo, namespace: apps}\nspec: {}"+status(server.URL+"/"+version, data, 0)))
	}
	m := lookup.NewMemory()
	seen := &observer{fetched: make(chan chartsource.Outcome, 1)}
	r := resolver(t, chartsource.Options{Wait: time.Minute, Observer: seen})
	from := validators.ChartRef{Source: validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: "GitRepository", Namespace: "apps", Name: "repo"}, Chart: "app"}
	resolve := func(want string) {
		t.Helper()
		c, got, err := r.Resolve(context.WithoutCancel(t.Context()), m, from)
		if got != validators.Present || c.Version() != want {
			t.Fatalf("Resolve = %v, %v, %v; want version %s", c, got, err, want)
		}
	}
	publish(m, "1.0.0")
	resolve("1.0.0")
	<-seen.fetched
	publish(m, "1.1.0")
	resolve("1.0.0")
	if outcome := <-seen.fetched; outcome != chartsource.OutcomeFetched {
		t.Fatal(outcome)
	}
	resolve("1.1.0")
}

func TestResolver_SchemaHosts(t *testing.T) {
	server := newRepo(t)
	host := strings.TrimPrefix(server.URL, "http://")
	server.set("/definitions.json", []byte(`{"definitions": {"port": {"$ref": "more.json#/port"}, "self": {"$ref": "#/definitions/port"}}}`))
	server.set("/more.json", []byte(`{"port": {"type": "integer"}, "else": {"$ref": "https://example.com/x"}}`))
	server.set("/deep.json", []byte(strings.Repeat(`{"not":`, 300)+"{}"+strings.Repeat("}", 300)))
	for name, tc := range map[string]struct {
		hosts  []string
		schema string
		want   string
	}{
		"a host that is allowed is read, and what it refers to": {[]string{host}, `{"properties": {"a": {"$ref": "URL/definitions.json#/definitions/self"}}}`, "at '/a': got string, want integer"},
		"another host that it refers to is not":                 {[]string{host}, `{"properties": {"a": {"$ref": "URL/more.json#/else"}}}`, "missing the schema at https://example.com/x, to which chart app refers and which is not loaded (--schema-host allows its host)"},
		"a host that is not allowed is not read":                {[]string{"example.com"}, `{"properties": {"a": {"$ref": "URL/more.json#/port"}}}`, "missing the schema at URL/more.json, to which chart app refers and which is not loaded (--schema-host allows its host)"},
		"a document that is not there leaves it open":           {[]string{host}, `{"properties": {"a": {"$ref": "URL/nope.json#/port"}}}`, "missing the schema at URL/nope.json, to which chart app refers and which is not loaded (--schema-host allows its host)"},
		"a document beyond the limits leaves it open":           {[]string{host}, `{"properties": {"a": {"$ref": "URL/deep.json"}}}`, "missing the schema at URL/deep.json, to which chart app refers and which is not loaded (--schema-host allows its host)"},
		"a file is no host":                                     {[]string{host, ""}, `{"properties": {"a": {"$ref": "file:///etc/passwd"}}}`, "missing the schema at file:///etc/passwd, to which chart app refers and which is not loaded (--schema-host allows its host)"},
	} {
		t.Run(name, func(t *testing.T) {
			doc := strings.ReplaceAll(tc.schema, "URL", server.URL)
			server.publish(t, "app", "1.0.0", map[string]string{"values.yaml": "a: x\n# " + name, "values.schema.json": doc})
			r := resolver(t, chartsource.Options{Wait: time.Minute, SchemaHosts: tc.hosts})
			c, presence, err := r.Resolve(t.Context(), lookup.NewMemory(helmRepository(t, server.URL, "")), ref("app", ""))
			if presence != validators.Present {
				t.Fatal(err)
			}
			result, err := c.Validate(t.Context(), validators.Values{})
			if err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, v := range result.Violations {
				texts = append(texts, "at '"+v.Pointer+"': "+v.Message)
			}
			for _, m := range result.Missing {
				texts = append(texts, "missing "+m)
			}
			if got := strings.ReplaceAll(strings.Join(texts, "; "), server.URL, "URL"); got != tc.want {
				t.Errorf("Validate() = %q, want %q", got, tc.want)
			}
		})
	}
}
