package fetch

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync/atomic"
	"testing"
)

// A proxy resolves and dials for the client, so checking the dialed address is not enough.
func TestClient_RefusesAddressesBehindAProxy(t *testing.T) {
	var requests atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	t.Cleanup(proxy.Close)
	through, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	isProxy := netip.MustParseAddrPort(through.Host).Addr()
	tr := transport(Credentials{Proxy: through}, func(ip netip.Addr) bool { return ip == isProxy || !linkLocal(ip) })
	t.Cleanup(tr.CloseIdleConnections)
	for raw, refused := range map[string]bool{
		"http://169.254.169.254/latest/meta-data": true, "http://[fe80::1]/": true, "http://[::ffff:169.254.169.254]/": true, "http://192.0.2.1/index.yaml": false,
		"http://resolved.by.the.proxy.only.invalid/": false,
	} {
		before := requests.Load()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, raw, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		if errors.Is(err, ErrRefused) != refused || (requests.Load() == before) != refused {
			t.Errorf("%s: error %v, the proxy received %d requests; want refused: %t", raw, err, requests.Load()-before, refused)
		}
	}
}
