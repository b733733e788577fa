package fetch

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzNewClient checks that only http and https URLs are accepted, and that no error quotes a password.
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
				t.Errorf("the error quotes the password: %v", err)
			}
			return
		}
		defer c.Close()
		if parseErr != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			t.Errorf("NewClient(%q) succeeds", raw)
		}
	})
}

// FuzzTLSConfig checks that certificates are accepted or rejected, and that no error quotes a key.
func FuzzTLSConfig(f *testing.F) {
	f.Add([]byte("cert"), []byte("key"), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte(""), []byte(""), []byte(""))
	f.Fuzz(func(t *testing.T, cert, key, authority []byte) {
		c, err := TLSConfig(cert, key, authority)
		if (c == nil) == (err == nil) {
			t.Errorf("TLSConfig() = %v, %v", c, err)
		}
		if err != nil && len(key) > 8 && strings.Contains(err.Error(), string(key)) {
			t.Error("the error quotes the key")
		}
	})
}
