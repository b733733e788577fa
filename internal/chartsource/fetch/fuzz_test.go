package fetch

import (
	"net/url"
	"strings"
	"testing"
)

// No source's URL makes a client of another scheme than http and https, and no message shows the login in it.
func FuzzNewClient(f *testing.F) {
	for _, raw := range []string{"https://charts.example.com/a?b=c", "http://user:hunter2@example.com", "file:///etc/passwd", "oci://x", "http://[::1%25eth0]:80/", "//x", "http://\x7f"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := NewClient(raw, Credentials{}, false)
		u, parseErr := url.Parse(raw)
		if err != nil {
			if parseErr != nil {
				return
			}
			if password, ok := u.User.Password(); ok && len(password) > 3 && strings.Contains(err.Error(), password) && !strings.Contains(u.Host+u.Path, password) {
				t.Errorf("the message quotes the password: %v", err)
			}
			return
		}
		defer c.Close()
		if parseErr != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			t.Errorf("%q makes a client", raw)
		}
	})
}

// Whatever is in the Secret of a source, its certificates are taken or refused, and no message quotes them.
func FuzzTLSConfig(f *testing.F) {
	f.Add([]byte("cert"), []byte("key"), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte(""), []byte(""), []byte(""))
	f.Fuzz(func(t *testing.T, cert, key, authority []byte) {
		c, err := TLSConfig(cert, key, authority)
		if (c == nil) == (err == nil) {
			t.Errorf("configuration %v with error %v", c, err)
		}
		if err != nil && len(key) > 8 && strings.Contains(err.Error(), string(key)) {
			t.Error("the message quotes the key")
		}
	})
}
