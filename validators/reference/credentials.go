package reference

import (
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// keySets are the sets of keys of which a Secret must have at least one as a whole. A key may be a pattern of path.Match.
// The first set is the one that messages suggest.
type keySets [][]string

// credentials adds the Secrets of a Flux source, a Receiver or a Provider, with the keys that the controllers read
// (github.com/fluxcd/pkg/runtime/secrets, fluxcd/pkg/git: AuthOptions.Validate).
func (c *collector) credentials(gk schema.GroupKind, spec validators.Path, namespace string) {
	for _, field := range []string{"secretRef", "certSecretRef", "proxySecretRef"} {
		c.add(spec.Child(field, "name"), secret, namespace)
	}
	own := spec.Child("secretRef", "name")
	url, _ := spec.Child("url").Lookup(c.root).(string)
	provider, _ := spec.Child("provider").Lookup(c.root).(string)
	switch {
	case gk == flux.GitRepository && strings.HasPrefix(url, "ssh://"):
		c.needs(own, "identity", "known_hosts")
	case gk == flux.GitRepository && provider == "github":
		c.needsOne(own, keySets{{"githubAppID", "githubAppPrivateKey"}})
	case gk == flux.GitRepository && (provider == "" || provider == "generic"):
		// A token may be the name of the user. A Secret for both protocols has the keys of ssh, too.
		c.needsOne(own, keySets{{"username"}, {"bearerToken"}, {"ca.crt"}, {"caFile"}, {"tls.crt", "tls.key"}, {"certFile", "keyFile"}, {"githubApp*"}})
	case gk == flux.HelmRepository:
		c.needsOne(own, keySets{
			{"username", "password"}, {".dockerconfigjson"}, {"tls.crt", "tls.key"}, {"certFile", "keyFile"}, {"ca.crt"}, {"caFile"},
		})
	case gk == flux.OCIRepository, gk == flux.ImageRepository:
		c.needsOne(own, keySets{{".dockerconfigjson"}, {".dockercfg"}})
	case gk == flux.Bucket && (provider == "" || provider == "generic" || provider == "aws"):
		c.needs(own, "accesskey", "secretkey")
	case gk == flux.Bucket && provider == "gcp":
		c.needs(own, "serviceaccount")
	case gk == flux.Receiver:
		c.needs(own, "token")
	case gk == flux.Provider:
		c.needsOne(own, keySets{
			{"address"}, {"token"}, {"headers"}, {"username"}, {"password"}, {"proxy"}, {"githubApp*"}, {"ca*"}, {"tls*"}, {"*[nN][kK]ey*"}, {"*[cC]reds*"},
		})
	}
	c.needsOne(spec.Child("certSecretRef", "name"), keySets{{"ca.crt"}, {"tls.crt", "tls.key"}, {"caFile"}, {"certFile", "keyFile"}})
	c.needs(spec.Child("proxySecretRef", "name"), "address")
}

// keys adds the Secrets with the keys of a Kustomization or HelmRelease. A person may create them by hand, so that only
// their keys are checked.
func (c *collector) keys(spec validators.Path, namespace string) {
	decryption, kubeConfig := spec.Child("decryption", "secretRef", "name"), spec.Child("kubeConfig", "secretRef")
	c.add(decryption, secret, namespace)
	c.needsOne(decryption, keySets{{"*.agekey"}, {"*.asc"}, {"sops.*"}})
	c.add(kubeConfig.Child("name"), secret, namespace)
	if key, _ := kubeConfig.Child("key").Lookup(c.root).(string); key != "" {
		c.needs(kubeConfig.Child("name"), key)
	} else {
		c.needsOne(kubeConfig.Child("name"), keySets{{"value"}, {"value.yaml"}})
	}
	for i := range c.out {
		if at := c.out[i].at.String(); at == decryption.String() || at == kubeConfig.Child("name").String() {
			c.out[i].byHand = true
		}
	}
}

// needsOne adds the sets of keys of which the object at a path of a reference must have one.
func (c *collector) needsOne(at validators.Path, sets keySets) {
	for i := range c.out {
		if c.out[i].at.String() == at.String() {
			c.out[i].sets = sets
		}
	}
}

// missing returns the text about the keys that an object with the keys lacks; empty if it has one of the sets.
func (s keySets) missing(keys []string) string {
	has := func(want string) bool {
		return slices.ContainsFunc(keys, func(key string) bool {
			matched, err := path.Match(want, key)
			return matched || err != nil
		})
	}
	partial := ""
	var names []string
	for _, set := range s {
		lacks := slices.DeleteFunc(slices.Clone(set), has)
		switch {
		case len(lacks) == 0:
			return ""
		case len(lacks) < len(set) && partial == "":
			partial = "has no key " + strings.Join(lacks, " and ")
		}
		if !slices.ContainsFunc(set, func(key string) bool { return strings.Contains(key, "[") }) {
			names = append(names, strings.Join(set, " and "))
		}
	}
	switch {
	case partial != "":
		return partial
	case len(names) == 1:
		return "has no key " + names[0]
	}
	return "has none of the keys that the controller reads: " + strings.Join(names, "; ")
}
