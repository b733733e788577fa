package delivery

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// maxDocument is the size of the largest YAML document that Read accepts, in bytes: a List of a whole cluster is one.
const maxDocument = 512 << 20

// errNotObject is returned for a document that has no kind.
var errNotObject = errors.New("it is not a Kubernetes object: apiVersion or kind is missing")

// Read reads objects from YAML or JSON: documents, lists, or both, as `kubectl get -o yaml` and `-o json` write them.
func Read(r io.Reader) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	documents := yaml.NewYAMLReader(bufio.NewReaderSize(r, 64<<10))
	for i := 1; ; i++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err == nil && len(document) > maxDocument {
			err = fmt.Errorf("it is larger than %d bytes", maxDocument)
		}
		if err != nil {
			return nil, fmt.Errorf("reading document %d: %w", i, err)
		}
		objects, err := readDocument(document)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i, err)
		}
		out = append(out, objects...)
	}
}

func readDocument(document []byte) ([]*unstructured.Unstructured, error) {
	// kubectl writes several JSON documents without a separator.
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(document), 4096)
	var out []*unstructured.Unstructured
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(raw) == 0 || string(raw) == "null" {
			continue
		}
		objects, err := decode(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, objects...)
	}
}

// decode returns the object, or the objects of a list.
func decode(raw []byte) ([]*unstructured.Unstructured, error) {
	decoded, _, err := unstructured.UnstructuredJSONScheme.Decode(raw, nil, nil)
	if runtime.IsMissingKind(err) || runtime.IsMissingVersion(err) {
		return nil, errNotObject
	}
	if err != nil {
		return nil, err
	}
	switch o := decoded.(type) {
	case *unstructured.Unstructured:
		return []*unstructured.Unstructured{o}, nil
	case *unstructured.UnstructuredList:
		out := make([]*unstructured.Unstructured, 0, len(o.Items))
		for i := range o.Items {
			if o.Items[i].GetKind() == "" || o.Items[i].GetAPIVersion() == "" {
				return nil, fmt.Errorf("item %d: %w", i+1, errNotObject)
			}
			out = append(out, &o.Items[i])
		}
		return out, nil
	}
	return nil, errNotObject
}
