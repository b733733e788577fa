package hostile_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/hostile"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

var shared struct {
	*env.Env
	client client.Client
}

// TestMain starts one replica as the Deployment does, with its hard limit of memory. HOSTILE_BINARY runs another version.
func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	os.Exit(env.Main(m, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs()},
		Shipped:      true,
		Binary:       os.Getenv("HOSTILE_BINARY"),
		Components:   []string{"read-secrets"},
		// A call that fails is a refused write, and seen.
		FailurePolicy: admissionregv1.Fail,
	}, func(_ context.Context, e *env.Env) error {
		config := e.ControlPlane.Config()
		config.WarningHandler = rest.NoWarnings{}
		c, err := client.New(config, client.Options{})
		shared.Env, shared.client = e, c
		return err
	}))
}

func parse(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func create(t *testing.T, manifest string) {
	t.Helper()
	if err := shared.client.Create(t.Context(), parse(t, manifest)); err != nil {
		t.Fatal(err)
	}
}

func try(t *testing.T, manifest string) error {
	t.Helper()
	return shared.client.Create(t.Context(), parse(t, manifest), client.DryRunAll)
}

// serveChart serves the chart c with some files as a repository.
func serveChart(t *testing.T, files map[string]string) string {
	t.Helper()
	archive := hostile.Pack(files)
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/index.yaml" {
			_, _ = io.WriteString(w, hostile.Index)
			return
		}
		_, _ = w.Write(archive)
	})
}

// serve serves until the test ends; the context of a request ends before.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// attacked runs an attack in a namespace of its own, and checks that the server has survived it, within its memory, and evaluates.
func attacked(t *testing.T, attack func(ns string)) {
	t.Helper()
	select {
	case <-shared.Webhook().Process().Ended(): // an attack of another test ended it
		if err := shared.Webhook().Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	default:
	}
	if err := shared.Webhook().ResetPeak(); err != nil {
		t.Fatal(err)
	}
	ns := shared.Namespace(t, "tenant-")
	attack(ns)
	evaluates(t, ns)
	u, err := shared.Webhook().Memory()
	if err != nil {
		t.Fatal(err)
	}
	if limit := shared.Webhook().MemoryLimit(); u.Peak > limit {
		t.Errorf("the peak of the resident memory is %d MiB, the limit of the container %d MiB", u.Peak>>20, limit>>20)
	}
	t.Logf("peak %d MiB, of it %d MiB of memory of its own at the end", u.Peak>>20, u.Heap>>20)
}

// evaluates checks that a Kustomization in a wrong namespace is denied for that.
func evaluates(t *testing.T, ns string) {
	t.Helper()
	if err := try(t, hostile.Kustomization(ns, "wrong", "")); err == nil || !strings.Contains(err.Error(), "KS001") {
		t.Errorf("a Kustomization in a wrong namespace: %v; want a denial by KS001", err)
	}
	select {
	case <-shared.Webhook().Process().Ended():
		t.Errorf("the server ended, for its memory: %v", shared.Webhook().OutOfMemory())
		if err := shared.Webhook().Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	default:
	}
}

func post(t *testing.T, body []byte) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+shared.Address+webhookconfig.ValidatePath+"?timeout=10s", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := hostile.Client().Do(r)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func dial(t *testing.T, protocols ...string) *tls.Conn {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}} //nolint:gosec // an attacker does not care
	conn, err := d.DialContext(t.Context(), "tcp", shared.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*tls.Conn)
}

// Anybody who can connect sends a release in another namespace, with a chart whose schema asks for each bit of a Secret.
func TestSecretOracle(t *testing.T) {
	attacked(t, func(ns string) {
		var bits []string
		for i := range 24 {
			bits = append(bits, fmt.Sprintf(`{"pattern": "^.{%d}[%s]"}`, i/6, strings.Repeat("aZq9x"[i%5:i%5+1], 1)))
		}
		create(t, hostile.Repository(ns, "mine", serveChart(t, map[string]string{"values.schema.json": `{"additionalProperties": false, "properties": {"p": {"allOf": [` + strings.Join(bits, ",") + `]}}}`})))
		victim := shared.Namespace(t, "victim-")
		for name, value := range map[string]string{"first": "Zq9x", "other": "xxxx"} {
			create(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\nstringData: {password: %s}\n", name, victim, value))
		}
		answers := map[string]bool{}
		for _, secret := range []string{"first", "other", "nosuch"} {
			o := hostile.Release(victim, "x", "mine", "  valuesFrom: [{kind: Secret, name: "+secret+", valuesKey: password, targetPath: p}]\n")
			o = strings.Replace(o, "name: mine}", "name: mine, namespace: "+ns+"}", 1)
			// Twice, since the chart may not be there at first.
			post(t, hostile.ReviewOf(parse(t, o)))
			answers[strings.ReplaceAll(post(t, hostile.ReviewOf(parse(t, o))), secret, "NAME")] = true
		}
		if len(answers) != 1 {
			t.Errorf("%d different answers: %v", len(answers), answers)
		}
	})
}

// A Kustomization of 3 kB has a pattern for kinds that compiles to three million instructions.
func TestPatternOfPatch(t *testing.T) {
	attacked(t, func(ns string) {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				_ = shared.client.Create(t.Context(), parse(t, hostile.Kustomization(ns, "re", "  patches: [{target: {kind: '"+hostile.Pattern+"'}, patch: '- {op: add, path: /spec/monitoring/enabled, value: true}'}]\n")), client.DryRunAll)
			})
		}
		all.Wait()
	})
}

// The pattern is the filter of an OCIRepository's tags.
func TestPatternOfSemverFilter(t *testing.T) {
	attacked(t, func(ns string) {
		create(t, fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: OCIRepository\nmetadata: {name: re, namespace: %s}\nspec: {interval: 10m, url: 'oci://127.0.0.1:1/c', ref: {semver: 1.x, semverFilter: '%s'}}\n", ns, hostile.Pattern))
		_ = try(t, fmt.Sprintf("apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: re, namespace: %s}\nspec: {interval: 10m, chartRef: {kind: OCIRepository, name: re}}\n", ns))
	})
}

// Every hostile chart, at once, and again after a crash with their releases stored.
func TestCharts(t *testing.T) {
	attacked(t, func(ns string) {
		var all sync.WaitGroup
		for name, files := range hostile.Charts() {
			create(t, hostile.Repository(ns, name, serveChart(t, files)))
			all.Go(func() {
				_ = shared.client.Create(t.Context(), parse(t, hostile.Release(ns, name, name, "  values: {a: "+strings.Repeat("a", 10_000)+"}\n")))
			})
		}
		all.Wait()
		evaluates(t, ns)
		if err := shared.Webhook().Kill(); err != nil {
			t.Fatal(err)
		}
		if err := shared.Webhook().Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		// The prefetcher reads the charts of stored releases, a few at once and then one a second.
		_ = wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 8*time.Second, false, func(context.Context) (bool, error) { return false, nil })
		err := shared.client.DeleteAllOf(t.Context(), parse(t, hostile.Release(ns, "", "", "")), client.InNamespace(ns))
		if err != nil {
			t.Fatal(err)
		}
	})
}

// Fifty target paths have lists of lists with 65,535 entries.
func TestTargetPaths(t *testing.T) {
	attacked(t, func(ns string) {
		create(t, hostile.Repository(ns, "empty", serveChart(t, map[string]string{"values.schema.json": "{}"})))
		create(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one, namespace: "+ns+"}\ndata: {k: '1'}\n")
		var b strings.Builder
		b.WriteString("  valuesFrom:\n")
		for i := range 50 {
			fmt.Fprintf(&b, "  - {kind: ConfigMap, name: one, valuesKey: k, targetPath: 'a%d%s'}\n", i, strings.Repeat("[65535]", 28))
		}
		_ = try(t, hostile.Release(ns, "x", "empty", b.String()))
		_ = try(t, hostile.Release(ns, "x", "empty", b.String()))
	})
}

// Two connections announce large bodies and send two bytes. Meanwhile, mistakes are denied.
func TestSlowBodies(t *testing.T) {
	attacked(t, func(ns string) {
		for _, n := range []int{7 << 20, 1 << 20} {
			fmt.Fprintf(dial(t, "http/1.1"), "POST %s?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n{", webhookconfig.ValidatePath, n)
		}
		evaluates(t, ns)
	})
}

// One review, as large as is read, has a value that a pattern matches slowly. Meanwhile, mistakes are denied.
func TestSlowReview(t *testing.T) {
	attacked(t, func(ns string) {
		create(t, hostile.Repository(ns, "slow", serveChart(t, map[string]string{"values.schema.json": `{"properties": {"p": {"pattern": "(?:` + strings.Repeat("[ab]?", 100) + `){50}$"}}}`})))
		_ = try(t, hostile.Release(ns, "prefetch", "slow", ""))
		o := parse(t, hostile.Release(ns, "x", "slow", "  values: {p: "+strings.Repeat("a", 60_000)+"c}\n"))
		o.SetAnnotations(map[string]string{"pad": strings.Repeat("{", 190_000)})
		body := hostile.ReviewOf(o)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { post(t, body) })
		}
		for range 5 {
			evaluates(t, ns)
		}
		all.Wait()
	})
}

// Braces in an annotation, dependencies that do not exist, and both: the wrong namespace is denied nevertheless.
func TestPadding(t *testing.T) {
	var b strings.Builder
	for i := range 6000 {
		fmt.Fprintf(&b, "{name: d%d}, ", i)
	}
	many := "  dependsOn: [" + b.String() + "]\n"
	attacked(t, func(ns string) {
		for name, extra := range map[string]string{"braces": "", "dependencies": many, "both": many} {
			o := parse(t, hostile.Kustomization(ns, name, extra))
			if name != "dependencies" {
				o.SetAnnotations(map[string]string{"pad": strings.Repeat("{", 200_000)})
			}
			if err := shared.client.Create(t.Context(), o, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "KS001") {
				t.Errorf("%s: %.300v; want a denial by KS001", name, err)
			}
		}
	})
}

// A release with 3,000 wrong values is denied like one with a single one.
func TestManyViolations(t *testing.T) {
	attacked(t, func(ns string) {
		create(t, hostile.Repository(ns, "strict", serveChart(t, map[string]string{"values.schema.json": `{"additionalProperties": {"type": "string"}}`})))
		values := map[string]string{}
		var b strings.Builder
		for i := range 3000 {
			fmt.Fprintf(&b, "k%05d: 1\n", i)
		}
		values["values.yaml"] = b.String()
		if err := shared.client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "many"}, Data: values}); err != nil {
			t.Fatal(err)
		}
		denied(t, hostile.Release(ns, "x", "strict", "  valuesFrom: [{kind: ConfigMap, name: many}]\n"))
	})
}

// denied checks that a release is denied for its values, at the latest when its chart has been read.
func denied(t *testing.T, manifest string) {
	t.Helper()
	var err error
	for range 5 {
		if err = try(t, manifest); err != nil && strings.Contains(err.Error(), "HR001") {
			return
		}
	}
	t.Errorf("%.300v; want a denial by HR001", err)
}

// Three indexes of 20 MiB, and charts whose templates name 50,000 values each.
func TestLargeRepositories(t *testing.T) {
	attacked(t, func(ns string) {
		var index strings.Builder
		index.WriteString("apiVersion: v1\nentries:\n")
		for c := 0; index.Len() < 20<<20; c++ {
			fmt.Fprintf(&index, "  chart%d:\n", c)
			for v := range 200 {
				fmt.Fprintf(&index, "  - apiVersion: v2\n    description: A chart that does one thing and then another, and takes a line to describe\n    digest: %064d\n    home: https://example.com/home\n    name: chart%d\n    urls:\n    - https://example.com/chart%d-1.2.%d.tgz\n    version: 1.2.%d\n", v, c, c, v, v)
			}
		}
		text := index.String()
		large := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
		var all sync.WaitGroup
		for n := range 3 {
			source := fmt.Sprintf("large-%d", n)
			create(t, hostile.Repository(ns, source, fmt.Sprintf("%s/%d", large, n)))
			all.Go(func() { _ = try(t, hostile.Release(ns, source, source, "")) })
		}
		for n := range 20 {
			var b strings.Builder
			for i := range 50_000 {
				fmt.Fprintf(&b, "{{ .Values.w%02d%05dxxxxxxxxxxxxxxxxxxxx }}\n", n, i)
			}
			source := fmt.Sprintf("words-%d", n)
			create(t, hostile.Repository(ns, source, serveChart(t, map[string]string{"values.yaml": "a: 1\n", "templates/a.yaml": b.String()})))
			all.Go(func() { _ = try(t, hostile.Release(ns, source, source, "  values: {b: 1}\n")) })
		}
		all.Wait()
	})
}

// Three tenants have chart hosts that do not respond. A fourth one's mistake is denied.
func TestTarpits(t *testing.T) {
	attacked(t, func(ns string) {
		create(t, hostile.Repository(ns, "strict", serveChart(t, map[string]string{"values.schema.json": `{"additionalProperties": false}`})))
		var requests atomic.Int64
		attack, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		defer all.Wait()
		defer stop()
		for range 3 {
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				for r.Context().Err() == nil { // a byte from time to time
					if _, err := io.WriteString(w, "#"); err != nil || http.NewResponseController(w).Flush() != nil {
						return
					}
					select {
					case <-r.Context().Done():
					case <-time.After(500 * time.Millisecond):
					}
				}
			})
			tenant := shared.Namespace(t, "tarpit-")
			for i := range 8 {
				source := fmt.Sprintf("pit-%d", i)
				create(t, hostile.Repository(tenant, source, fmt.Sprintf("%s/%d", url, i)))
				o := parse(t, hostile.Release(tenant, source, source, ""))
				all.Go(func() {
					for attack.Err() == nil {
						_ = shared.client.Create(attack, o.DeepCopy(), client.DryRunAll)
					}
				})
			}
		}
		for requests.Load() < 8 {
			<-time.After(10 * time.Millisecond)
		}
		denied(t, hostile.Release(ns, "x", "strict", "  values: {a: 1}\n"))
	})
}

// The server does not speak HTTP/2, with which one connection carries any number of requests.
func TestProtocol(t *testing.T) {
	if p := dial(t, "h2", "http/1.1").ConnectionState().NegotiatedProtocol; p == "h2" {
		t.Errorf("the protocol is %s", p)
	}
}

// 3,000 connections are opened and left idle.
func TestIdleConnections(t *testing.T) {
	attacked(t, func(ns string) {
		var conns []net.Conn
		for range 3000 {
			d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}} //nolint:gosec // see above
			if c, err := d.DialContext(t.Context(), "tcp", shared.Address); err == nil {
				_, _ = io.WriteString(c, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
				conns = append(conns, c)
			}
		}
		evaluates(t, ns)
		n, err := shared.Webhook().Metric(t.Context(), "flux_admission_connections")
		if err != nil || n == 0 || n > 640 {
			t.Errorf("%v connections are open, %v; want a limit", n, err)
		}
		for _, c := range conns {
			_ = c.Close()
		}
	})
}

// Who knows the digest of another tenant's chart gets no answers about it without having served it.
func TestDigestOfAnotherTenant(t *testing.T) {
	attacked(t, func(ns string) {
		archive := hostile.Pack(map[string]string{"values.schema.json": `{"additionalProperties": false, "properties": {"internalEndpoint": {}}}`})
		sum := sha256.Sum256(archive)
		index := strings.Replace(hostile.Index, "urls:", "digest: "+hex.EncodeToString(sum[:])+", urls:", 1)
		repositoryOf := func(archive []byte) string {
			return serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/index.yaml":
					_, _ = io.WriteString(w, index)
				case archive == nil:
					http.NotFound(w, r)
				default:
					_, _ = w.Write(archive)
				}
			})
		}
		owner := shared.Namespace(t, "owner-")
		create(t, hostile.Repository(owner, "private", repositoryOf(archive)))
		create(t, hostile.Repository(ns, "guess", repositoryOf(nil)))
		denied(t, hostile.Release(owner, "x", "private", "  values: {a: 1}\n"))
		if err := try(t, hostile.Release(ns, "x", "guess", "  values: {a: 1}\n")); err != nil {
			t.Errorf("the attacker learns of the chart: %v", err)
		}
	})
}

// Four stored releases have values that a pattern matches slowly, and charts that come too late for their reviews. The deferred
// evaluation of another tenant's release takes place.
func TestStuckDeferredEvaluations(t *testing.T) {
	var served atomic.Int64
	late := func(files map[string]string) string {
		archive := hostile.Pack(files)
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/index.yaml" {
				_, _ = io.WriteString(w, hostile.Index)
				return
			}
			select {
			case <-time.After(4 * time.Second):
				_, _ = w.Write(archive)
				served.Add(1)
			case <-r.Context().Done():
			}
		})
	}
	attacked(t, func(ns string) {
		invalid := func() float64 {
			n, err := shared.Webhook().Metric(t.Context(), "flux_admission_deferred_evaluations_total", "rule=helm-values-schema", "outcome=invalid")
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		before := invalid()
		var patterns []string
		for i := range 20 { // each takes seconds, without a budget
			patterns = append(patterns, fmt.Sprintf(`{"pattern": "(?:%s){50}x{%d}$"}`, strings.Repeat("[ab]?", 100), i))
		}
		slow := map[string]string{"values.schema.json": `{"properties": {"p": {"allOf": [` + strings.Join(patterns, ",") + `]}}}`}
		for i := range 4 {
			source := fmt.Sprintf("slow-%d", i)
			create(t, hostile.Repository(ns, source, late(slow)))
			create(t, hostile.Release(ns, source, source, "  values: {p: "+strings.Repeat("a", 60_000)+"c}\n"))
		}
		for served.Load() < 4 { // the slow evaluations are first
			<-time.After(10 * time.Millisecond)
		}
		honest := shared.Namespace(t, "honest-")
		create(t, hostile.Repository(honest, "strict", late(map[string]string{"values.schema.json": `{"additionalProperties": false}`})))
		create(t, hostile.Release(honest, "x", "strict", "  values: {a: 1}\n"))
		err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 2*time.Minute, true, func(context.Context) (bool, error) { return invalid() > before, nil })
		if err != nil {
			t.Errorf("the release was not evaluated after its review: %v", err)
		}
	})
}

// Reviews that are no reviews get a response, and end nothing.
func TestMalformedReviews(t *testing.T) {
	attacked(t, func(string) {
		for _, body := range [][]byte{
			nil, []byte("null"), []byte("{}"), []byte(strings.Repeat(`{"a":`, 100_000)), bytes.Repeat([]byte(" "), 8<<20),
			[]byte(`{"request": {"uid": "` + strings.Repeat("x", 1<<20) + `"}}`),
			hostile.Review("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "default", []byte("null")),
			hostile.Review("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "default", []byte("["+strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000)+"]")),
		} {
			var answer admissionv1.AdmissionReview
			if data := post(t, body); json.Unmarshal([]byte(data), &answer) == nil && answer.Response != nil && !answer.Response.Allowed {
				t.Errorf("%.60q is refused: %s", body, data)
			}
		}
	})
}
