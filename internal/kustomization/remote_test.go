package kustomization

import "testing"

func TestRemoteResource_MayHave(t *testing.T) {
	for _, tc := range []struct {
		address, name string
		want          bool
	}{
		{"https://github.com/cert-manager/cert-manager/releases/download/v1.15.0/cert-manager.yaml", "cert-manager", true},
		{"https://github.com/cert-manager/cert-manager/releases/download/v1.15.0/cert-manager.yaml", "vault", false},
		{"https://raw.githubusercontent.com/rook/rook/v1.14/deploy/examples/common.yaml", "rook-ceph", true},
		{"https://raw.githubusercontent.com/rook/rook/v1.14/deploy/examples/common.yaml", "team-a", false},
		{"github.com/kubernetes-sigs/gateway-api/config/crd?ref=v1.1.0", "apps", false},
	} {
		if got := (remoteResource{address: tc.address}).mayHave(tc.name); got != tc.want {
			t.Errorf("%s in %s: %v, want %v", tc.name, tc.address, got, tc.want)
		}
	}
}

func TestOwnerOf(t *testing.T) {
	for address, want := range map[string]string{
		"https://github.com/Example/fleet.git":               "github.com/example",
		"ssh://git@github.com/example/fleet":                 "github.com/example",
		"git@github.com:example/fleet.git":                   "github.com/example",
		"https://raw.githubusercontent.com/example/x/y.yaml": "github.com/example",
		"github.com/example/base//overlay?ref=main":          "github.com/example",
	} {
		if got := ownerOf(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
