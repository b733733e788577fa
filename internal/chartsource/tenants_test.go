package chartsource_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/chartsource/registry"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// claim pushes a manifest whose layer the registry does not have.
func claim(t *testing.T, server *httptest.Server, layer []byte) {
	t.Helper()
	repo, err := remote.NewRepository(server.Listener.Addr().String() + "/charts/app")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	config := content.NewDescriptorFromBytes("application/vnd.cncf.helm.config.v1+json", []byte("{}"))
	if err := repo.Push(t.Context(), config, bytes.NewReader([]byte("{}"))); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config,
		Layers: []ocispec.Descriptor{content.NewDescriptorFromBytes(registry.ChartLayer, layer)},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest := content.NewDescriptorFromBytes(ocispec.MediaTypeImageManifest, text)
	if err := repo.PushReference(t.Context(), manifest, bytes.NewReader(text), "1.0.0"); err != nil {
		t.Fatal(err)
	}
}

// TestResolver_ChartOfAnotherTenant: after the victim's chart was read, a source of the attacker that cannot read it itself does
// not get it, whatever it claims and wherever the charts are cached.
func TestResolver_ChartOfAnotherTenant(t *testing.T) {
	data := chartArchive(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	artifacts := tarball(t, map[string]string{
		"charts/app/Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n", "charts/app/values.schema.json": strictSchema,
	})
	private, _ := ociServer(t, "user:pass", false)
	push(t, private, "user:pass", "charts/app", "1.0.0", registry.ChartLayer, data)
	lying, _ := ociServer(t, "", false)
	claim(t, lying, data)
	files := http.NewServeMux()
	protected := func(w http.ResponseWriter, req *http.Request) bool {
		u, p, _ := req.BasicAuth()
		if u+":"+p != "user:pass" {
			w.WriteHeader(http.StatusUnauthorized)
			return false
		}
		return true
	}
	server := httptest.NewServer(files)
	t.Cleanup(server.Close)
	files.HandleFunc("/private/index.yaml", func(w http.ResponseWriter, req *http.Request) {
		if protected(w, req) {
			_, _ = fmt.Fprintf(w, "apiVersion: v1\nentries: {app: [{name: app, version: 1.0.0, urls: [app.tgz], digest: %s}]}\n", sha256Of(data))
		}
	})
	files.HandleFunc("/private/app.tgz", func(w http.ResponseWriter, req *http.Request) {
		if protected(w, req) {
			_, _ = w.Write(data)
		}
	})
	files.HandleFunc("/victim.tar.gz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(artifacts) })
	files.HandleFunc("/victim.tgz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })

	source := func(namespace, kind, spec, status string) string {
		return fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: %s\nmetadata: {name: repo, namespace: %s, generation: 1}\nspec: {%s}%s",
			kind, namespace, spec, status)
	}
	of := func(namespace, kind, chart string) validators.ChartRef {
		return validators.ChartRef{
			Source:           validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: kind, Namespace: namespace, Name: "repo"},
			ReleaseNamespace: namespace, Chart: chart,
		}
	}
	registryOf := func(s *httptest.Server) string {
		return fmt.Sprintf("url: 'oci://%s/charts/app', insecure: true, ref: {tag: 1.0.0}", s.Listener.Addr())
	}
	repository := fmt.Sprintf("url: '%s/private'", server.URL)
	const login = ", secretRef: {name: login}"
	for name, tc := range map[string]struct{ kind, chart, victim, victimStatus, attacker, attackerStatus string }{
		"the digest of a layer":          {"OCIRepository", "", registryOf(private) + login, "", registryOf(lying), ""},
		"a registry without its login":   {"OCIRepository", "", registryOf(private) + login, "", registryOf(private), ""},
		"a repository without its login": {"HelmRepository", "app", repository + login, "", repository, ""},
		"the digest of an artifact": {
			"GitRepository", "charts/app", "url: x", status(server.URL+"/victim.tar.gz", artifacts, 1),
			"url: x", status(server.URL+"/nothing", artifacts, 1),
		},
		"the digest of a packaged chart": {
			"HelmChart", "", "chart: app, sourceRef: {kind: HelmRepository, name: none}", status(server.URL+"/victim.tgz", data, 1),
			"chart: app, sourceRef: {kind: HelmRepository, name: none}", status(server.URL+"/nothing", data, 1),
		},
	} {
		for _, dir := range []string{"", t.TempDir()} {
			t.Run(fmt.Sprintf("%s, on disk %t", name, dir != ""), func(t *testing.T) {
				r := resolver(t, chartsource.Options{Wait: time.Minute, CacheDir: dir})
				m := lookup.NewMemory(
					object(t, source("victim", tc.kind, tc.victim, tc.victimStatus)), object(t, source("attacker", tc.kind, tc.attacker, tc.attackerStatus)),
					object(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: login, namespace: victim}\ndata: {username: "+
						base64.StdEncoding.EncodeToString([]byte("user"))+", password: "+base64.StdEncoding.EncodeToString([]byte("pass"))+"}"),
				)
				if _, got, err := r.Resolve(t.Context(), m, of("victim", tc.kind, tc.chart)); got != validators.Present {
					t.Fatalf("the victim's chart: %v, %v", got, err)
				}
				if c, got, err := r.Resolve(t.Context(), m, of("attacker", tc.kind, tc.chart)); got == validators.Present || c != nil || err == nil {
					t.Errorf("the attacker gets the chart: %v, %v", got, err)
				}
			})
		}
	}
}
