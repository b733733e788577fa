package soak_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/hostile"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// attackers is the number of concurrent attackers, each with a pause between two attacks.
const (
	attackers   = 3
	attackPause = 300 * time.Millisecond
)

// tenants are the namespaces of the attackers, which work together.
var tenants = []string{"tenant-a", "tenant-b", "tenant-c"}

// attacker has what the attacks use.
type attacker struct {
	client client.Client
	hosts  *httptest.Server
	count  atomic.Int64  // of names
	next   atomic.Int64  // of attacks
	end    chan struct{} // closed when hosts shall not hold requests any longer
}

func newAttacker(c client.Client) *attacker {
	a := &attacker{client: c, end: make(chan struct{})}
	a.hosts = httptest.NewServer(http.HandlerFunc(a.serve))
	return a
}

func (a *attacker) close() {
	close(a.end)
	a.hosts.CloseClientConnections()
	a.hosts.Close()
}

var archives = func() map[string][]byte {
	out := map[string][]byte{}
	for name, files := range hostile.Charts() {
		out[name] = hostile.Pack(files)
	}
	return out
}()

// serve is every chart host of the attackers: /KIND/… for a hostile chart, or for a host that does not do what it should.
func (a *attacker) serve(w http.ResponseWriter, r *http.Request) {
	kind, file, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if _, after, ok := strings.Cut(file, "/"); ok {
		file = after // each repository has a path of its own
	}
	held := func() {
		select {
		case <-a.end:
		case <-r.Context().Done():
		}
	}
	switch kind {
	case "tarpit":
		held()
		return
	case "drip":
		for range 600 {
			if _, err := io.WriteString(w, "#"); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-a.end:
				return
			case <-r.Context().Done():
				return
			case <-time.After(time.Second):
			}
		}
	case "index":
		_, _ = io.WriteString(w, "apiVersion: v1\nentries:\n")
		for c := range 400 {
			var b strings.Builder
			fmt.Fprintf(&b, "  chart%d:\n", c)
			for v := range 100 {
				fmt.Fprintf(&b, "  - {apiVersion: v2, name: chart%d, version: 1.2.%d, description: 'A chart that does one thing and then another, in a line', digest: %064d, urls: ['https://example.com/chart%d-1.2.%d.tgz']}\n", c, v, v, c, v)
			}
			if _, err := io.WriteString(w, b.String()); err != nil {
				return
			}
		}
	case "liar":
		_, _ = io.WriteString(w, "<!doctype html><title>Sign in</title>")
	default:
		if file == "index.yaml" {
			_, _ = io.WriteString(w, hostile.Index)
			return
		}
		_, _ = w.Write(archives[kind])
	}
}

// run attacks until ctx ends.
func (a *attacker) run(ctx context.Context, attacks []func(context.Context)) {
	for ctx.Err() == nil {
		attacks[int(a.next.Add(1))%len(attacks)](ctx)
		sleep(ctx, attackPause)
	}
}

// attacks returns all attacks. Each ends by itself.
func (a *attacker) attacks() []func(context.Context) {
	out := []func(context.Context){
		a.slowBodies, a.idleConnections, a.notTLS,
		a.posts("a body of 8 MiB", bytes.Repeat([]byte(" "), 8<<20)),
		a.posts("deep JSON", []byte(strings.Repeat(`{"a":`, 100_000))),
		a.posts("a review of an object that is nested deeply", review(strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000))),
		a.posts("a review with many braces", review(`"`+strings.Repeat("{", 300_000)+`"`)),
		a.posts("a review with a large object", review(`"`+strings.Repeat("x", 3<<20)+`"`)),
		a.writes(func(ns, n string) string {
			return hostile.Kustomization(ns, n, "  patches: [{target: {kind: '"+hostile.Pattern+"'}, patch: '- {op: add, path: /spec/monitoring/enabled, value: true}'}]\n")
		}),
		a.writes(func(ns, n string) string {
			var b strings.Builder
			for i := range 6000 {
				fmt.Fprintf(&b, "{name: d%d}, ", i)
			}
			return hostile.Kustomization(ns, n, "  dependsOn: ["+b.String()+"]\n")
		}),
		a.targetPaths, a.manyViolations,
	}
	for kind := range archives {
		out = append(out, a.release(kind, 1, false))
	}
	return append(out, a.release("tarpit", 8, false), a.release("drip", 8, true), a.release("index", 1, false), a.release("liar", 2, true), a.release("tarpit", 8, true))
}

// review returns a review of a Kustomization with an annotation or a field of the given JSON.
func review(value string) []byte {
	object := fmt.Sprintf(`{"apiVersion":"kustomize.toolkit.fluxcd.io/v1","kind":"Kustomization","metadata":{"name":"x","namespace":"tenant-a"},"spec":{"path":"./x","pad":%s}}`, value)
	return hostile.Review("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "tenant-a", []byte(object))
}

// posts sends a body to a replica as any Pod can, several at once.
func (a *attacker) posts(_ string, body []byte) func(context.Context) {
	return func(ctx context.Context) {
		done := make(chan struct{})
		for range 4 {
			go func() {
				defer func() { done <- struct{}{} }()
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+shared.Address+webhookconfig.ValidatePath+"?timeout=10s", bytes.NewReader(body))
				if err != nil {
					return
				}
				if response, err := hostile.Client().Do(r); err == nil {
					_, _ = io.Copy(io.Discard, response.Body)
					_ = response.Body.Close()
				}
			}()
		}
		for range 4 {
			<-done
		}
	}
}

func dial(ctx context.Context) (net.Conn, error) {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}} //nolint:gosec // see above
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return d.DialContext(ctx, "tcp", shared.Address)
}

// slowBodies announces bodies and sends a few bytes of them.
func (a *attacker) slowBodies(ctx context.Context) {
	var conns []net.Conn
	for i := range 24 {
		if c, err := dial(ctx); err == nil {
			conns = append(conns, c)
			fmt.Fprintf(c, "POST /validate?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n{", (1+i%7)<<20)
		}
	}
	for range 5 {
		sleep(ctx, time.Second)
		for _, c := range conns {
			_, _ = io.WriteString(c, " ")
		}
	}
	for _, c := range conns {
		_ = c.Close()
	}
}

// idleConnections opens connections and sends nothing.
func (a *attacker) idleConnections(ctx context.Context) {
	var conns []net.Conn
	for range 300 {
		if c, err := dial(ctx); err == nil {
			conns = append(conns, c)
		}
	}
	sleep(ctx, 5*time.Second)
	for _, c := range conns {
		_ = c.Close()
	}
}

// notTLS sends what is no handshake, and half a handshake.
func (a *attacker) notTLS(ctx context.Context) {
	for range 20 {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", shared.Address)
		if err != nil {
			continue
		}
		_, _ = io.WriteString(c, "\x16\x03\x01\x02\x00\x01\x00")
		defer func() { _ = c.Close() }()
	}
	sleep(ctx, time.Second)
}

func (a *attacker) name() string { return fmt.Sprintf("hostile-%d", a.count.Add(1)) }

func (a *attacker) tenant() string { return tenants[int(a.count.Add(1))%len(tenants)] }

// create writes an object; what the answer is does not matter.
func (a *attacker) create(ctx context.Context, manifest string, opts ...client.CreateOption) {
	_ = a.client.Create(ctx, parse(manifest), opts...)
}

// writes sends an object through the API server, several at once.
func (a *attacker) writes(manifest func(ns, name string) string) func(context.Context) {
	text := manifest("NAMESPACE", "NAME")
	return func(ctx context.Context) {
		done := make(chan struct{})
		for range 4 {
			go func() {
				defer func() { done <- struct{}{} }()
				a.create(ctx, strings.NewReplacer("NAMESPACE", a.tenant(), "NAME", a.name()).Replace(text), client.DryRunAll)
			}()
		}
		for range 4 {
			<-done
		}
	}
}

// release sends releases of a new repository of some kind in every namespace of the attackers: dry-runs, or stored for a while.
func (a *attacker) release(kind string, n int, stored bool) func(context.Context) {
	return func(ctx context.Context) {
		for _, ns := range tenants {
			source := a.name()
			a.create(ctx, hostile.Repository(ns, source, a.hosts.URL+"/"+kind+"/"+source))
			done := make(chan struct{})
			for range n {
				go func() {
					defer func() { done <- struct{}{} }()
					name := a.name()
					o := hostile.Release(ns, name, source, "  values: {a: "+strings.Repeat("a", 10_000)+"}\n")
					if !stored {
						a.create(ctx, o, client.DryRunAll)
						return
					}
					a.create(ctx, o)
					sleep(ctx, 3*time.Second)
					_ = a.client.Delete(context.WithoutCancel(ctx), parse(o))
				}()
			}
			for range n {
				<-done
			}
			_ = a.client.Delete(context.WithoutCancel(ctx), parse(hostile.Repository(ns, source, a.hosts.URL)))
		}
	}
}

// targetPaths sends a release whose values have lists of millions of entries.
func (a *attacker) targetPaths(ctx context.Context) {
	ns, source := a.tenant(), "strict"
	a.create(ctx, hostile.Repository(ns, source, a.hosts.URL+"/strict/"+ns))
	_ = a.client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "one"}, Data: map[string]string{"k": "1"}})
	var b strings.Builder
	b.WriteString("  valuesFrom:\n")
	for i := range 50 {
		fmt.Fprintf(&b, "  - {kind: ConfigMap, name: one, valuesKey: k, targetPath: 'a%d%s'}\n", i, strings.Repeat("[65535]", 28))
	}
	a.create(ctx, hostile.Release(ns, a.name(), source, b.String()), client.DryRunAll)
}

// manyViolations sends a release with 3,000 wrong values.
func (a *attacker) manyViolations(ctx context.Context) {
	ns, source := a.tenant(), "strict"
	a.create(ctx, hostile.Repository(ns, source, a.hosts.URL+"/strict/"+ns))
	var b strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&b, "k%05d: 1\n", i)
	}
	_ = a.client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "many"}, Data: map[string]string{"values.yaml": b.String()}})
	a.create(ctx, hostile.Release(ns, a.name(), source, "  valuesFrom: [{kind: ConfigMap, name: many}]\n"), client.DryRunAll)
}
