package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestLinkLocal(t *testing.T) {
	for address, want := range map[string]struct{ linkLocal, internal bool }{
		"169.254.169.254":               {true, true},
		"::ffff:169.254.169.254":        {true, true},
		"64:ff9b::a9fe:a9fe":            {true, true},
		"64:ff9b:1::a9fe:a9fe":          {true, true},
		"2002:a9fe:a9fe::1":             {true, true},
		"::169.254.169.254":             {true, true},
		"2001:0:a9fe:a9fe::":            {true, true},
		"2001::5601:5601":               {true, true}, // inverted
		"2001:db8::5efe:a9fe:a9fe":      {true, true},
		"2001:db8::200:5efe:a9fe:a9fe":  {true, true},
		"fd00:ec2::254":                 {true, true},
		"fd20:ce::254":                  {true, true},
		"100.100.100.200":               {true, true},
		"64:ff9b::100.100.100.200":      {true, true},
		"192.0.0.192":                   {true, true},
		"168.63.129.16":                 {true, true},
		"fe80::1%eth0":                  {true, true},
		"ff02::1":                       {true, true},
		"224.0.0.1":                     {true, true},
		"127.0.0.1":                     {false, true},
		"::1":                           {false, true},
		"::":                            {false, true},
		"0.0.0.0":                       {false, true},
		"64:ff9b::127.0.0.1":            {false, true},
		"2002:7f00:1::":                 {false, true},
		"10.96.0.1":                     {false, false},
		"100.100.100.201":               {false, false},
		"fd20:ce::255":                  {false, false},
		"64:ff9b::8.8.8.8":              {false, false},
		"2606:4700::1111":               {false, false},
		"2001:4860:4860::8888":          {false, false},
		"2001:db8:0:0:0:5eff:a9fe:a9fe": {false, false},
		"2a00:1450:4001:80b::200e":      {false, false},
	} {
		ip := netip.MustParseAddr(address)
		if got := linkLocal(ip); got != want.linkLocal {
			t.Errorf("linkLocal(%s) = %t, want %t", address, got, want.linkLocal)
		}
		if got := internal(ip); got != want.internal {
			t.Errorf("internal(%s) = %t, want %t", address, got, want.internal)
		}
	}
}

// TestCoarse: what a host that is no web server sends, and how a connection fails, is no part of a message to users.
func TestCoarse(t *testing.T) {
	banner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = banner.Close() })
	go func() {
		for {
			c, err := banner.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("SSH-2.0-OpenSSH_9.6 secretbanner\r\n"))
			_ = c.Close()
		}
	}()
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("x"))
	}))
	t.Cleanup(cut.Close)
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	missing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(missing.Close)
	cannot := func(url string) string { return "x: " + url + "/index.yaml cannot be fetched" }
	for url, want := range map[string]string{
		"http://" + banner.Addr().String():  cannot("http://" + banner.Addr().String()),
		"https://" + banner.Addr().String(): cannot("https://" + banner.Addr().String()),
		"http://127.0.0.1:1":                cannot("http://127.0.0.1:1"),
		cut.URL:                             cannot(cut.URL),
		secure.URL:                          cannot(secure.URL),
		missing.URL:                         "x: " + missing.URL + "/index.yaml returned 404 Not Found",
	} {
		c, err := NewClient(url, Credentials{}, false)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Get(t.Context(), url+"/index.yaml", 1000)
		if got := Coarse("x", fmt.Errorf("x: %w", err)); got == nil || got.Error() != want {
			t.Errorf("Coarse() of %v = %v, want %s", err, got, want)
		}
		resp, err := c.HTTP().Get(url + "/index.yaml")
		if err == nil {
			_ = resp.Body.Close()
		} else if strings.Contains(Coarse("x", err).Error(), "secretbanner") {
			t.Errorf("Coarse() of %v has the banner", err)
		}
		c.Close()
	}
	refused := &TransportError{URL: "u", Err: fmt.Errorf("%w: no", ErrRefused)}
	if got := Coarse("x", refused); !errors.Is(got, ErrRefused) || Coarse("x", nil) != nil || !errors.Is(Coarse("x", context.Canceled), context.Canceled) {
		t.Errorf("Coarse() of a refused request = %v, want the reason", got)
	}
}
