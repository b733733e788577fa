package chartsource

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/validators"
)

// credentials reads the credentials of a source from its Secrets, and else from the user's own logins. The fingerprint changes with them, and does
// not reveal them.
func credentials(
	ctx context.Context, objects validators.Lookup, obj *unstructured.Unstructured, sourceURL string,
) (c fetch.Credentials, fingerprint string, err error) {
	c, fingerprint, err = secretCredentials(ctx, objects, obj, sourceURL)
	own, ok := objects.(withLogin)
	insecure, _, _ := unstructured.NestedBool(obj.Object, "spec", "insecure")
	if !ok || own.login == nil || err == nil && c.Username != "" || insecure {
		return c, fingerprint, err
	}
	username, password, loginErr := own.login(ctx, sourceURL)
	if loginErr != nil {
		return c, fingerprint, errors.Join(err, loginErr)
	}
	switch {
	case username == "" && password == "" && err != nil:
		return c, fingerprint, fmt.Errorf("%w; there is no login of docker login or helm repo add either", err)
	case username == "" && password == "":
		return c, fingerprint, nil
	}
	// The object may come from somebody else than the login: it does not decide who else gets it.
	c.Username, c.Password, c.PassCredentials = username, password, false
	sum := sha256.Sum256([]byte(join(fingerprint, username, password)))
	return c, hex.EncodeToString(sum[:]), nil
}

// secretCredentials reads the credentials of a source from its Secrets.
func secretCredentials(
	ctx context.Context, objects validators.Lookup, obj *unstructured.Unstructured, sourceURL string,
) (c fetch.Credentials, fingerprint string, err error) {
	var cert, key, authority []byte
	if name, ok, _ := unstructured.NestedString(obj.Object, "spec", "secretRef", "name"); ok {
		data, err := secret(ctx, objects, obj.GetNamespace(), name)
		if err != nil {
			return c, "", err
		}
		c.Username, c.Password = string(data["username"]), string(data["password"])
		if config, ok := data[".dockerconfigjson"]; ok {
			if c.Username, c.Password, err = dockerConfig(config, sourceURL); err != nil {
				return c, "", fmt.Errorf("its Secret %s/%s: %w", obj.GetNamespace(), name, err)
			}
		}
		// TLS in this Secret is deprecated, but source-controller still reads it.
		cert, key, authority = data["certFile"], data["keyFile"], data["caFile"]
		if cert == nil && authority == nil {
			cert, key, authority = data["tls.crt"], data["tls.key"], data["ca.crt"]
		}
	}
	if name, ok, _ := unstructured.NestedString(obj.Object, "spec", "certSecretRef", "name"); ok {
		data, err := secret(ctx, objects, obj.GetNamespace(), name)
		if err != nil {
			return c, "", err
		}
		cert, key, authority = data["tls.crt"], data["tls.key"], data["ca.crt"]
	}
	if cert != nil || key != nil || authority != nil {
		if c.TLS, err = fetch.TLSConfig(cert, key, authority); err != nil {
			return c, "", err
		}
	}
	if name, ok, _ := unstructured.NestedString(obj.Object, "spec", "proxySecretRef", "name"); ok {
		if c.Proxy, err = proxy(ctx, objects, obj.GetNamespace(), name); err != nil {
			return c, "", err
		}
	}
	c.PassCredentials, _, _ = unstructured.NestedBool(obj.Object, "spec", "passCredentials")
	h := sha256.New()
	for _, secret := range [][]byte{
		[]byte(c.Username), []byte(c.Password), cert, key, authority,
		fmt.Append(nil, c.Proxy), fmt.Append(nil, c.PassCredentials),
	} {
		sum := sha256.Sum256(secret)
		h.Write(sum[:])
	}
	return c, hex.EncodeToString(h.Sum(nil)), nil
}

// proxy returns the URL of the proxy in a Secret.
func proxy(ctx context.Context, objects validators.Lookup, namespace, name string) (*url.URL, error) {
	data, err := secret(ctx, objects, namespace, name)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(string(data["address"]))
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("its Secret %s/%s has no proxy address", namespace, name)
	}
	if len(data["username"]) > 0 {
		u.User = url.UserPassword(string(data["username"]), string(data["password"]))
	}
	return u, nil
}

// dockerConfig returns the login for a registry from a Docker configuration; empty when it has none.
func dockerConfig(config []byte, registryURL string) (username, password string, err error) {
	var file struct {
		Auths map[string]struct {
			Username string `json:"username"`
			Password string `json:"password"`
			Auth     string `json:"auth"`
		} `json:"auths"`
	}
	if json.Unmarshal(config, &file) != nil {
		return "", "", errors.New("its key .dockerconfigjson is not a Docker configuration")
	}
	u, err := url.Parse(registryURL)
	if err != nil {
		return "", "", errNoURL
	}
	for name, a := range file.Auths {
		host := name
		if _, rest, ok := strings.Cut(name, "://"); ok {
			host = rest
		}
		host, _, _ = strings.Cut(host, "/")
		if host != u.Host && (u.Host != "docker.io" && u.Host != "registry-1.docker.io" || host != "index.docker.io") {
			continue
		}
		if a.Username != "" || a.Auth == "" {
			return a.Username, a.Password, nil
		}
		login, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return "", "", errors.New("its key .dockerconfigjson has a login that is not base64")
		}
		username, password, _ = strings.Cut(string(login), ":")
		return username, password, nil
	}
	return "", "", nil
}

// secret returns the data of a Secret.
func secret(ctx context.Context, objects validators.Lookup, namespace, name string) (map[string][]byte, error) {
	o, presence, err := objects.Get(ctx, schema.GroupKind{Kind: "Secret"}, types.NamespacedName{Namespace: namespace, Name: name})
	switch {
	case presence == validators.Absent:
		return nil, fmt.Errorf("its Secret %s/%s does not exist", namespace, name)
	case presence != validators.Present:
		return nil, fmt.Errorf("its Secret %s/%s could not be read: %w", namespace, name, err)
	}
	out := map[string][]byte{}
	data, _, err := unstructured.NestedStringMap(o.Object, "data")
	if err != nil {
		return nil, fmt.Errorf("its Secret %s/%s has data that is not a map of strings", namespace, name)
	}
	for k, v := range data {
		if out[k], err = base64.StdEncoding.DecodeString(v); err != nil {
			return nil, fmt.Errorf("its Secret %s/%s cannot be read: key %s is not base64", namespace, name, k)
		}
	}
	plain, _, err := unstructured.NestedStringMap(o.Object, "stringData")
	if err != nil {
		return nil, fmt.Errorf("its Secret %s/%s has stringData that is not a map of strings", namespace, name)
	}
	for k, v := range plain {
		out[k] = []byte(v)
	}
	return out, nil
}
