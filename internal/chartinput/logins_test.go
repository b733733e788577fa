package chartinput

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"
)

func TestLogins(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	auth := func(login string) string { return base64.StdEncoding.EncodeToString([]byte(login)) }
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("HELM_REPOSITORY_CONFIG", write("repositories.yaml", "apiVersion: v1\nrepositories:\n- {name: a, url: https://charts.example.com/stable, username: helm, password: secret}\n"))
	write("config.json", `{"auths": {"ghcr.io": {"auth": "`+auth("docker:secret")+`"}, "https://index.docker.io/v1/": {"auth": "`+auth("hub:secret")+`"}}}`)
	other := write("other.json", `{"auths": {"ghcr.io": {"auth": "`+auth("other:secret")+`"}}}`)
	for name, tc := range map[string]struct{ config, source, want string }{
		"Docker's login":                 {"", "oci://ghcr.io/team/charts/web", "docker"},
		"Docker Hub":                     {"", "oci://registry-1.docker.io/team/web", "hub"},
		"another file":                   {other, "oci://ghcr.io/team/charts/web", "other"},
		"a registry without a login":     {"", "oci://quay.io/team/charts/web", ""},
		"Helm's repository":              {"", "https://charts.example.com/stable/", "helm"},
		"another path of its host":       {"", "https://charts.example.com/other", ""},
		"the same path without security": {"", "http://charts.example.com/stable", ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := readLogins(tc.config)
			if err != nil {
				t.Fatal(err)
			}
			username, password, err := l.login(t.Context(), tc.source)
			if err != nil || username != tc.want || (password == "secret") != (tc.want != "") {
				t.Errorf("login %q, error %v, want %q", username, err, tc.want)
			}
		})
	}
	if _, err := readLogins(filepath.Join(dir, "none.json")); err == nil {
		t.Error("a file that the user names and that does not exist is accepted")
	}
	t.Setenv("DOCKER_CONFIG", filepath.Join(dir, "none"))
	t.Setenv("HELM_REPOSITORY_CONFIG", filepath.Join(dir, "none.yaml"))
	if _, err := readLogins(""); err != nil {
		t.Errorf("without any configuration: %v", err)
	}
}
