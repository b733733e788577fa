package kustomization

import (
	"slices"
	"strings"
)

// remoteResource is a resource outside of the tree that was not evaluated.
type remoteResource struct {
	address string
	// namespace is the target namespace of the Kustomization that lists it; empty when that has none.
	namespace string
}

// mayHave reports whether the resource plausibly has an object of the name: a word of the name is in its address, as
// cert-manager is in that of cert-manager's release. The manifest of one operator has no object of another.
func (r remoteResource) mayHave(name string) bool {
	address := addressWords(r.address)
	return len(address) == 0 || slices.ContainsFunc(addressWords(name), func(word string) bool { return slices.Contains(address, word) })
}

// commonWords are words in addresses that name nothing.
var commonWords = []string{
	"https", "http", "git", "ssh", "github", "gitlab", "raw", "githubusercontent", "com", "org", "io", "dev", "blob", "tree", "main", "master",
	"refs", "heads", "tags", "ref", "release", "releases", "download", "latest", "yaml", "yml", "install", "manifest", "manifests", "deploy",
	"config", "default", "base", "overlays", "kubernetes", "sigs", "k8s", "system", "operator", "controller", "build", "static", "provider", "the",
	"crd", "crds",
}

// addressWords returns the words of an address or a name that name something.
func addressWords(s string) []string {
	const shortest = 3
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	return slices.DeleteFunc(words, func(word string) bool {
		return len(word) < shortest || slices.Contains(commonWords, word) || strings.Trim(word, "v0123456789") == ""
	})
}

// ownerOf returns the host and the owner of a repository's address, such as github.com/fluxcd; the address itself when
// it has none. The content of raw.githubusercontent.com is GitHub's.
func ownerOf(address string) string {
	_, rest, ok := strings.Cut(address, "://")
	if !ok {
		rest = address
	}
	if _, after, ok := strings.Cut(rest, "@"); ok {
		rest = after
	}
	rest = strings.Replace(rest, "raw.githubusercontent.com", "github.com", 1)
	parts := strings.FieldsFunc(rest, func(r rune) bool { return r == '/' || r == ':' })
	if len(parts) < 2 {
		return address
	}
	return strings.ToLower(parts[0] + "/" + parts[1])
}
