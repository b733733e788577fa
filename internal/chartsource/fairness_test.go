package chartsource_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// tarPit accepts requests and never responds, until the test ends.
type tarPit struct {
	*httptest.Server
	requests atomic.Int64
}

func newTarPit(t *testing.T) *tarPit {
	t.Helper()
	end := make(chan struct{})
	p := &tarPit{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(end); p.Close() })
	return p
}

// repositoryIn adds a HelmRepository, and returns a reference to a chart in it.
func repositoryIn(t *testing.T, m *lookup.Memory, namespace, name, url, chart string) validators.ChartRef {
	t.Helper()
	m.Add(object(t, fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\nmetadata: {name: %s, namespace: %s}\nspec: {url: %q}", name, namespace, url)))
	return validators.ChartRef{
		Source:           validators.ObjectRef{Group: "source.toolkit.fluxcd.io", Kind: "HelmRepository", Namespace: namespace, Name: name},
		ReleaseNamespace: namespace, Chart: chart, Version: "1.0.0",
	}
}

func reached(n *atomic.Int64, want int64) {
	for n.Load() < want {
		<-time.After(time.Millisecond)
	}
}

// TestResolver_OneTenantDoesNotDelayAnother has a tenant with 20 repositories, or 20 charts of one repository, at a host that
// does not respond.
func TestResolver_OneTenantDoesNotDelayAnother(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	for name, repositories := range map[string]int{"20 repositories": 20, "20 charts of one repository": 1} {
		t.Run(name, func(t *testing.T) {
			pit := newTarPit(t)
			m := lookup.NewMemory()
			r := resolver(t, chartsource.Options{Wait: time.Minute, MaxFetches: 8, MaxFetchesPerTenant: 3})
			for i := range 20 {
				bad := repositoryIn(t, m, "attacker", fmt.Sprintf("pit%d", i%repositories), pit.URL, fmt.Sprintf("app%d", i))
				if _, got, _ := r.Resolve(chartsource.WithBudget(t.Context(), 0), m, bad); got != validators.Unknown {
					t.Fatalf("Resolve = %v", got)
				}
			}
			reached(&pit.requests, int64(min(repositories, 3)))
			good := repositoryIn(t, m, "honest", "repo", server.URL, "app")
			if _, got, err := r.Resolve(t.Context(), m, good); got != validators.Present {
				t.Errorf("Resolve = %v, %v; want the other tenant's chart", got, err)
			}
			if n := pit.requests.Load(); n > 3 {
				t.Errorf("%d requests to the slow host at once; want at most 3", n)
			}
		})
	}
}

// TestResolver_TenantsTogetherDoNotDelayAnother has three tenants that fill all slots with hosts that do not respond, and never
// would: the repositories of a fourth one are read nevertheless.
func TestResolver_TenantsTogetherDoNotDelayAnother(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", map[string]string{"values.schema.json": strictSchema})
	pits := []*tarPit{newTarPit(t), newTarPit(t), newTarPit(t)} // hosts of their own: those of one host share its slots
	m := lookup.NewMemory()
	r := resolver(t, chartsource.Options{Wait: time.Minute, MaxFetches: 8, MaxFetchesPerTenant: 3, HeaderTimeout: time.Hour, FetchTimeout: time.Hour})
	for i := range 24 {
		bad := repositoryIn(t, m, fmt.Sprintf("attacker-%d", i%3), fmt.Sprintf("pit%d", i), pits[i%3].URL, "app")
		if _, got, _ := r.Resolve(chartsource.WithBudget(t.Context(), 0), m, bad); got != validators.Unknown {
			t.Fatalf("Resolve = %v", got)
		}
	}
	for pits[0].requests.Load()+pits[1].requests.Load()+pits[2].requests.Load() < 8 {
		<-time.After(time.Millisecond)
	}
	if _, got, err := r.Resolve(t.Context(), m, repositoryIn(t, m, "honest", "repo", server.URL, "app")); got != validators.Present {
		t.Errorf("Resolve = %v, %v; want the chart of the fourth tenant", got, err)
	}
}

// TestResolver_WaitsForAnIndexWithoutASlot has as many charts of one repository as there are slots.
func TestResolver_WaitsForAnIndexWithoutASlot(t *testing.T) {
	server := newRepo(t)
	server.publish(t, "app", "1.0.0", nil)
	pit := newTarPit(t)
	m := lookup.NewMemory()
	r := resolver(t, chartsource.Options{Wait: time.Minute, MaxFetches: 2})
	for i := range 6 {
		bad := repositoryIn(t, m, "apps", "pit", pit.URL, fmt.Sprintf("app%d", i))
		if _, got, _ := r.Resolve(chartsource.WithBudget(t.Context(), 0), m, bad); got != validators.Unknown {
			t.Fatalf("Resolve = %v", got)
		}
	}
	reached(&pit.requests, 1)
	if _, got, err := r.Resolve(t.Context(), m, repositoryIn(t, m, "apps", "repo", server.URL, "app")); got != validators.Present {
		t.Errorf("Resolve = %v, %v", got, err)
	}
}

// TestResolver_BacksOffFromAHost has a host that does not respond in time: other charts of the tenant are not fetched from it
// for a while, those of another tenant are.
func TestResolver_BacksOffFromAHost(t *testing.T) {
	pit := newTarPit(t)
	m := lookup.NewMemory()
	var now atomic.Int64
	r := resolver(t, chartsource.Options{
		Wait: time.Minute, HeaderTimeout: 50 * time.Millisecond, FetchTimeout: time.Minute, NegativeTTL: time.Minute,
		Clock: func() time.Time { return time.Unix(now.Load(), 0) },
	})
	try := func(namespace, chart, want string, requests int64) {
		t.Helper()
		_, got, err := r.Resolve(t.Context(), m, repositoryIn(t, m, namespace, "pit", pit.URL, chart))
		if got != validators.Unknown || !strings.Contains(text(err), want) {
			t.Errorf("Resolve = %v, %v; want unknown, %s", got, err, want)
		}
		if n := pit.requests.Load(); n != requests {
			t.Errorf("%d requests to the host; want %d", n, requests)
		}
	}
	try("attacker", "a", "cannot be fetched", 1)
	try("attacker", "b", "did not respond a short time ago", 1)
	try("honest", "c", "cannot be fetched", 2)
	now.Add(16)
	try("attacker", "d", "cannot be fetched", 3)
	now.Add(16) // it failed twice: the time has doubled
	try("attacker", "e", "did not respond a short time ago", 3)
	now.Add(16)
	try("attacker", "f", "cannot be fetched", 4)
}

// TestResolver_BacksOffFromAChart counts the requests for a chart that cannot be read.
func TestResolver_BacksOffFromAChart(t *testing.T) {
	server := newRepo(t)
	m := lookup.NewMemory(helmRepository(t, server.URL, ""))
	var now atomic.Int64
	r := resolver(t, chartsource.Options{Wait: time.Minute, Clock: func() time.Time { return time.Unix(now.Load(), 0) }})
	for range 600 {
		if _, got, _ := r.Resolve(t.Context(), m, ref("app", "1.x")); got != validators.Unknown {
			t.Fatalf("Resolve = %v", got)
		}
		now.Add(1)
	}
	// After 0, 20, 60, 140, 260, 380 and 500 seconds.
	if n := server.indexes.Load(); n != 7 {
		t.Errorf("the repository received %d requests in ten minutes, want 7", n)
	}
	server.publish(t, "app", "1.2.3", nil)
	now.Add(120)
	if _, got, err := r.Resolve(t.Context(), m, ref("app", "1.x")); got != validators.Present {
		t.Errorf("Resolve = %v, %v", got, err)
	}
}

// TestResolver_HeaderTimeoutCoversTheHandshake connects to a listener that accepts and sends nothing.
func TestResolver_HeaderTimeoutCoversTheHandshake(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	m := lookup.NewMemory()
	r := resolver(t, chartsource.Options{Wait: time.Minute, HeaderTimeout: 50 * time.Millisecond})
	for _, url := range []string{"https://" + listener.Addr().String(), "oci://" + listener.Addr().String() + "/charts"} {
		_, got, err := r.Resolve(t.Context(), m, repositoryIn(t, m, "apps", "r"+url[:3], url, "app"))
		if got != validators.Unknown || !strings.Contains(text(err), "cannot be fetched") && !strings.Contains(text(err), "did not respond") {
			t.Errorf("%s: %v, %v", url, got, err)
		}
	}
}
