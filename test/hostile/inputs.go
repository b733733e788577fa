// Package hostile has what attackers send: charts, reviews and patterns. Its tests send all of it to the real binary, with the hard
// limit of memory that ships.
package hostile

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Pattern is one of 3 kB that compiles to three million instructions.
var Pattern = "(?:" + strings.Repeat("ab", 1500) + "){1000}"

// Charts are the files of hostile charts, by name.
func Charts() map[string]map[string]string {
	var patterns, chain strings.Builder
	for i := range 8 {
		fmt.Fprintf(&patterns, `"p%d": {"pattern": %q},`, i, Pattern)
	}
	for i := range 50_000 {
		fmt.Fprintf(&chain, `"d%d": {"$ref": "#/definitions/d%d"},`, i, i+1)
	}
	return map[string]map[string]string{
		"patterns": {"values.schema.json": `{"properties": {` + patterns.String() + `"a": {}}}`},
		"match":    {"values.schema.json": `{"properties": {"a": {"pattern": "(?:` + strings.Repeat("[ab]?", 100) + `){50}$"}}}`},
		"chain":    {"values.schema.json": `{"$ref": "#/definitions/d0", "definitions": {` + chain.String() + `"d50000": {}}}`},
		"deep":     {"values.schema.json": strings.Repeat(`{"not": `, 50_000) + "{}" + strings.Repeat("}", 50_000)},
		"values":   {"values.yaml": "a: [" + strings.Repeat("[],", 3_000_000) + "[]]\n", "values.schema.json": "{}"},
		"strict":   {"values.schema.json": `{"additionalProperties": {"type": "string"}}`},
	}
}

// Pack packs the files of the chart c, version 1.0.0.
func Pack(files map[string]string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	put := func(name, text string) {
		if err := w.WriteHeader(&tar.Header{Name: "c/" + name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			panic(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			panic(err)
		}
	}
	put("Chart.yaml", "apiVersion: v2\nname: c\nversion: 1.0.0\n")
	for name, text := range files {
		put(name, text)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Index is the index of a repository that has the chart c, version 1.0.0, at c-1.0.0.tgz.
const Index = "apiVersion: v1\nentries:\n  c:\n  - {apiVersion: v2, name: c, version: 1.0.0, urls: [c-1.0.0.tgz]}\n"

// ReviewOf returns a review of an object's creation.
func ReviewOf(o *unstructured.Unstructured) []byte {
	object, err := o.MarshalJSON()
	if err != nil {
		panic(err)
	}
	gvk := o.GroupVersionKind()
	return Review(gvk.Group, gvk.Version, gvk.Kind, o.GetNamespace(), object)
}

// Review returns a review of the creation of an object, which need not be valid.
func Review(group, version, kind, ns string, object []byte) []byte {
	data, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "direct", Kind: metav1.GroupVersionKind{Group: group, Version: version, Kind: kind},
			Namespace: ns, Name: "x", Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: object},
		},
	})
	if err != nil {
		panic(err)
	}
	return data
}

// Client is an HTTP client of anybody who can connect to a webhook server.
func Client() *http.Client {
	return &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, //nolint:gosec // an attacker does not care
	}}
}
