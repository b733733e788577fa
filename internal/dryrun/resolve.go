package dryrun

import (
	"encoding/base64"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/manifest"
	"github.com/flux-admission/flux-admission/validators"
)

// resolve returns an object with the values that are not in Git as the cluster has them, and the number of those that the
// cluster has not. The values of a Secret that nobody knows are empty: Git has a text there that is not in base64.
func resolve(o *kustomization.Object, live *unstructured.Unstructured) (desired *unstructured.Unstructured, open int) {
	desired = o.DeepCopy()
	// kustomize-controller removes SOPS' metadata when it decrypts.
	unstructured.RemoveNestedField(desired.Object, "sops")
	secret := manifest.IsSecret(desired)
	for _, at := range o.Unresolved {
		var known any
		if live != nil {
			known = at.Lookup(live.Object)
		}
		if secret && known == nil && len(at) == 2 && at[0].Key == "stringData" {
			known = decoded(live, at[1].Key)
		}
		switch {
		case known != nil:
			set(desired.Object, at, known)
		case secret && len(at) == 2 && (at[0].Key == "data" || at[0].Key == "stringData"):
			set(desired.Object, at, "")
			open++
		default:
			open++
		}
	}
	return desired, open
}

// decoded returns a value of a Secret of the cluster as stringData has it; nil if there is none.
func decoded(secret *unstructured.Unstructured, key string) any {
	if secret == nil {
		return nil
	}
	text, found, err := unstructured.NestedString(secret.Object, "data", key)
	if !found || err != nil {
		return nil
	}
	value, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return string(value)
}

// set replaces the value at a path that exists.
func set(root any, at validators.Path, value any) {
	if len(at) == 0 {
		return
	}
	switch parent := at[:len(at)-1].Lookup(root).(type) {
	case map[string]any:
		parent[at[len(at)-1].Key] = value
	case []any:
		if i := at[len(at)-1].Index; i >= 0 && i < len(parent) {
			parent[i] = value
		}
	}
}

// Overlay returns an object of the cluster with the fields of another one in it: roughly what an apply would store that the
// API server refuses. Items of lists are merged by their names.
func Overlay(live, desired *unstructured.Unstructured) *unstructured.Unstructured {
	merged, _ := overlay(live.DeepCopy().Object, desired.DeepCopy().Object).(map[string]any)
	return &unstructured.Unstructured{Object: merged}
}

func overlay(live, desired any) any {
	switch d := desired.(type) {
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok {
			return d
		}
		for key, value := range d {
			l[key] = overlay(l[key], value)
		}
		return l
	case []any:
		l, _ := live.([]any)
		for i, item := range d {
			if of := named(l, item); of != nil {
				d[i] = overlay(of, item)
			}
		}
	}
	return desired
}

// named returns the item of a list with the name of another item; nil for none.
func named(list []any, item any) any {
	m, _ := item.(map[string]any)
	if m["name"] == nil {
		return nil
	}
	for _, other := range list {
		if o, ok := other.(map[string]any); ok && o["name"] == m["name"] {
			return o
		}
	}
	return nil
}
