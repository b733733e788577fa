package chartsource

import (
	"encoding/base64"
	"strings"
	"testing"
)

// FuzzDockerConfig checks that an error comes without a login and quotes no password.
func FuzzDockerConfig(f *testing.F) {
	login := base64.StdEncoding.EncodeToString([]byte("me:hunter2"))
	for _, config := range []string{
		`{"auths": {"https://registry.example.com/v1": {"auth": "` + login + `"}}}`, `{"auths": {"registry.example.com": {"username": "me", "password": "hunter2"}}}`,
		`{"auths": {"registry.example.com": {"auth": "no base64"}}}`, `{"auths": []}`, `{`, ``, `{"auths": {"index.docker.io": {}}}`,
	} {
		f.Add([]byte(config), "oci://registry.example.com/charts")
	}
	f.Add([]byte(`{}`), "://")
	f.Fuzz(func(t *testing.T, config []byte, registry string) {
		username, password, err := dockerConfig(config, registry)
		if err != nil && (username != "" || password != "") {
			t.Error("a login with an error")
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error quotes a password: %v", err)
		}
	})
}
