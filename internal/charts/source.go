package charts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/charts/fetch"
	"github.com/flux-admission/flux-admission/validators"
)

var secretGK = schema.GroupKind{Kind: "Secret"}

// source finds out where a reference's chart is to be read. Absent means that the Flux source does not exist.
func (r *Resolver) source(ctx context.Context, objects validators.Lookup, ref validators.ChartRef) (source, validators.Presence, error) {
	key := types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name}
	switch ref.Source.Kind {
	case "HelmRepository":
	default:
		return nil, validators.Unknown, fmt.Errorf("sources of kind %s are not read yet", ref.Source.Kind)
	}
	obj, presence, err := objects.Get(ctx, schema.GroupKind{Group: ref.Source.Group, Kind: ref.Source.Kind}, key)
	if presence != validators.Present {
		return nil, presence, err
	}
	src, err := newHelmRepository(ctx, objects, obj, ref)
	if err != nil {
		return nil, validators.Unknown, fmt.Errorf("%s %s: %w", ref.Source.Kind, key, err)
	}
	return src, validators.Present, nil
}

// credentials reads the credentials of a source from its Secrets. The fingerprint changes with them and gives nothing of them away.
func credentials(ctx context.Context, objects validators.Lookup, obj *unstructured.Unstructured) (c fetch.Credentials, fingerprint string, err error) {
	h := sha256.New()
	var cert, key, authority []byte
	if name, ok, _ := unstructured.NestedString(obj.Object, "spec", "secretRef", "name"); ok {
		data, err := secret(ctx, objects, obj.GetNamespace(), name)
		if err != nil {
			return c, "", err
		}
		c.Username, c.Password = string(data["username"]), string(data["password"])
		// Deprecated, and still read by source-controller.
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
	c.Everywhere, _, _ = unstructured.NestedBool(obj.Object, "spec", "passCredentials")
	for _, part := range [][]byte{[]byte(c.Username), []byte(c.Password), cert, key, authority, []byte(fmt.Sprint(c.Everywhere))} {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	return c, hex.EncodeToString(h.Sum(nil)), nil
}

// secret returns the data of a Secret.
func secret(ctx context.Context, objects validators.Lookup, namespace, name string) (map[string][]byte, error) {
	o, presence, err := objects.Get(ctx, secretGK, types.NamespacedName{Namespace: namespace, Name: name})
	switch {
	case presence == validators.Absent:
		return nil, fmt.Errorf("its Secret %s/%s does not exist", namespace, name)
	case presence != validators.Present:
		return nil, fmt.Errorf("its Secret %s/%s could not be read: %w", namespace, name, err)
	}
	out := map[string][]byte{}
	data, _, err := unstructured.NestedStringMap(o.Object, "data")
	if err != nil {
		return nil, fmt.Errorf("its Secret %s/%s has no data of the usual form", namespace, name)
	}
	for k, v := range data {
		if out[k], err = base64.StdEncoding.DecodeString(v); err != nil {
			return nil, fmt.Errorf("its Secret %s/%s is not to be read: key %s is not base64", namespace, name, k)
		}
	}
	plain, _, err := unstructured.NestedStringMap(o.Object, "stringData")
	if err != nil {
		return nil, fmt.Errorf("its Secret %s/%s has no stringData of the usual form", namespace, name)
	}
	for k, v := range plain {
		out[k] = []byte(v)
	}
	return out, nil
}

var errNoURL = errors.New("it has no URL")
