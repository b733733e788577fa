// Package sources_test applies a release together with its source to a real API server, for each kind of source that Flux
// has. Real servers provide the sources.
package sources_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ociregistry "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"helm.sh/helm/v4/pkg/registry"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/flux"
	"github.com/flux-admission/flux-admission/test/writepath"
)

const login, password = "reader", "let-me-in"

var shared struct {
	*env.Env
	// private serves the chart over HTTP with a login, secure over TLS, images as an OCI artifact.
	private, secure, images, artifacts *httptest.Server
	// tree is the artifact of a Git repository or bucket with the chart at charts/airflow.
	tree []byte
}

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs()},
		Charts:       []string{env.AirflowChart},
		// Logins and certificate authorities of repositories are in Secrets.
		Components: []string{"read-secrets"},
	}, setUp))
}

// setUp starts further servers with the chart that the Helm repository of the environment serves.
func setUp(_ context.Context, e *env.Env) error {
	shared.Env = e
	root, err := env.Root()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, filepath.FromSlash(env.AirflowChart))
	web := e.ChartDir
	// In the index of the other servers the archive's URL is relative.
	index, err := os.ReadFile(filepath.Join(web, "index.yaml"))
	if err != nil {
		return err
	}
	relative := bytes.ReplaceAll(index, []byte(shared.Charts.URL+"/"), nil)
	files := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/index.yaml" {
			_, _ = w.Write(relative)
			return
		}
		http.ServeFileFS(w, r, os.DirFS(web), strings.TrimPrefix(r.URL.Path, "/"))
	})
	shared.private = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != login || p != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files(w, r)
	}))
	shared.secure = httptest.NewUnstartedServer(files)
	shared.secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	shared.secure.StartTLS()
	shared.images = httptest.NewServer(ociregistry.New(ociregistry.Logger(log.New(io.Discard, "", 0))))
	if err := push(web); err != nil {
		return err
	}
	if shared.tree, err = pack(dir, "charts/airflow"); err != nil {
		return err
	}
	shared.artifacts = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(shared.tree) }))
	return nil
}

// push puts the packaged chart into the OCI registry with Helm's own client.
func push(web string) error {
	packed, err := filepath.Glob(filepath.Join(web, "airflow-*.tgz"))
	if err != nil || len(packed) != 1 {
		return fmt.Errorf("packaged charts %v: %w", packed, err)
	}
	data, err := os.ReadFile(packed[0])
	if err != nil {
		return err
	}
	c, err := registry.NewClient(registry.ClientOptPlainHTTP(), registry.ClientOptWriter(io.Discard))
	if err != nil {
		return err
	}
	version := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(packed[0]), "airflow-"), ".tgz")
	_, err = c.Push(data, strings.TrimPrefix(shared.images.URL, "http://")+"/charts/airflow:"+version)
	return err
}

// pack makes the artifact that source-controller would serve: a directory's files under a path.
func pack(dir, under string) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: under + "/" + filepath.ToSlash(rel), Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		return nil, err
	}
	// What is compressed is whole only after both are closed.
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func secret(ns, name string, data map[string]string) string {
	text := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ndata:\n", name, ns)
	for k, v := range data {
		text += fmt.Sprintf("  %s: %s\n", k, base64.StdEncoding.EncodeToString([]byte(v)))
	}
	return text + "---\n"
}

func source(ns, kind, spec string) string {
	return fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: %s\nmetadata: {name: charts, namespace: %s}\nspec: {interval: 1h, %s}\n---\n", kind, ns, spec)
}

func release(ns, chart, values string) string {
	return fmt.Sprintf(`apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: airflow, namespace: %s}
spec:
  interval: 10m
  %s
  values: {data: {metadataConnection: %s}}
`, ns, chart, values)
}

const (
	good = "{user: airflow}"
	bad  = "{existingSecret: db, existingSecretKey: uri}"
)

func TestWebhook_ReleaseWithSource(t *testing.T) {
	byRepository := "chart: {spec: {chart: airflow, version: 1.x, sourceRef: {kind: HelmRepository, name: charts}}}"
	byPath := func(kind string) string {
		return "chart: {spec: {chart: ./charts/airflow, sourceRef: {kind: " + kind + ", name: charts}}}"
	}
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: shared.secure.Certificate().Raw}))
	registryHost := strings.TrimPrefix(shared.images.URL, "http://")
	for name, tc := range map[string]struct {
		source func(ns string) string
		chart  string
		// artifact means that the chart is unknown until source-controller has fetched the source.
		artifact bool
	}{
		"HelmRepository over HTTP": {func(ns string) string { return source(ns, "HelmRepository", "url: "+shared.Charts.URL) }, byRepository, false},
		"HelmRepository with a login": {func(ns string) string {
			return secret(ns, "login", map[string]string{"username": login, "password": password}) +
				source(ns, "HelmRepository", "url: "+shared.private.URL+", secretRef: {name: login}")
		}, byRepository, false},
		"HelmRepository over TLS with its own authority": {func(ns string) string {
			return secret(ns, "authority", map[string]string{"ca.crt": authority}) +
				source(ns, "HelmRepository", "url: "+shared.secure.URL+", certSecretRef: {name: authority}")
		}, byRepository, false},
		"HelmRepository of type oci": {func(ns string) string {
			return source(ns, "HelmRepository", "type: oci, insecure: true, url: \"oci://"+registryHost+"/charts\"")
		}, byRepository, false},
		"OCIRepository": {func(ns string) string {
			return source(ns, "OCIRepository", "insecure: true, url: \"oci://"+registryHost+"/charts/airflow\", ref: {semver: 1.x}")
		}, "chartRef: {kind: OCIRepository, name: charts}", false},
		"GitRepository": {func(ns string) string {
			return source(ns, "GitRepository", "url: https://git.example.com/x, ref: {branch: main}")
		}, byPath("GitRepository"), true},
		"Bucket": {func(ns string) string {
			return source(ns, "Bucket", "endpoint: s3.example.com, bucketName: charts")
		}, byPath("Bucket"), true},
	} {
		for _, by := range []string{"kubectl", "Flux"} {
			t.Run(name+"/"+by, func(t *testing.T) {
				ns := shared.Namespace(t, "sources-")
				if err := apply(t, by, tc.source(ns)+release(ns, tc.chart, good)); err != nil {
					t.Errorf("good values: %v", err)
				}
				ns = shared.Namespace(t, "sources-")
				err := apply(t, by, tc.source(ns)+release(ns, tc.chart, bad))
				if err != nil && !tc.artifact {
					denied(t, err, "existingSecret")
					return
				}
				// The release is allowed as unknown: its source does not exist yet, or has no artifact until source-controller has
				// fetched it. The stored mistake is not denied again, but a new one is, and the repaired release is allowed.
				if err != nil {
					t.Fatalf("bad values before there is an artifact: %v", err)
				}
				if by == "kubectl" && !tc.artifact {
					t.Error("bad values pass although the source came first")
				}
				if tc.artifact {
					setArtifact(t, ns, tc.source(ns))
				}
				denied(t, apply(t, by, release(ns, tc.chart, "{existingSecret: db, existingSecretKey: uri, another: x}")), "'another'")
				if t.Failed() {
					t.Log(shared.Webhook().LogTail())
				}
				if err := apply(t, by, release(ns, tc.chart, good)); err != nil {
					t.Errorf("the repaired release: %v", err)
				}
			})
		}
	}
}

func denied(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "HR001") || !strings.Contains(err.Error(), "/data/metadataConnection") || !strings.Contains(err.Error(), part) {
		t.Errorf("bad values: %v; want a denial by HR001 with %s", err, part)
	}
}

func apply(t *testing.T, by, manifests string) error {
	t.Helper()
	if by == "kubectl" {
		return writepath.Kubectl("apply").Write(t.Context(), shared.ControlPlane, manifests).Err
	}
	_, err := flux.Apply(t.Context(), shared.ControlPlane.Config(), client.ObjectKey{Namespace: "flux-system", Name: "apps"}, objects(t, manifests)...)
	return err
}

func objects(t *testing.T, manifests string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for doc := range strings.SplitSeq(manifests, "---\n") {
		o, err := writepath.Parse(doc)
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
	return out
}

// setArtifact does what source-controller does when it has fetched a source.
func setArtifact(t *testing.T, ns, manifests string) {
	t.Helper()
	o := objects(t, manifests)[0]
	if err := shared.Client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "charts"}, o); err != nil {
		t.Fatal(err)
	}
	o.Object["status"] = map[string]any{
		"observedGeneration": o.GetGeneration(),
		"artifact": map[string]any{
			"url": shared.artifacts.URL + "/charts.tar.gz", "digest": digest.FromBytes(shared.tree).String(), "revision": "main@sha1:0123",
			"path": "charts.tar.gz", "lastUpdateTime": time.Now().UTC().Format(time.RFC3339),
		},
	}
	if err := shared.Client.Status().Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}
