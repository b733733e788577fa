package kindschema

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/validators"
)

// readTimeout bounds the reads for one answer.
const readTimeout = 2 * time.Second

// Live knows the kinds of a cluster, from its API server. It is safe for concurrent use.
type Live struct {
	reader client.Reader
	mapper meta.RESTMapper
	native *native

	mu   sync.Mutex
	crds map[string]liveCRD // by name
}

// liveCRD is a definition as it was when it was read.
type liveCRD struct {
	uid             types.UID
	resourceVersion string
	crd             *crd
}

// NewLive returns the kinds of the cluster that the reader reads. The reader should not be a cache: definitions are large, and few of
// them are asked for.
func NewLive(reader client.Reader, mapper meta.RESTMapper) (*Live, error) {
	n, err := newNative(0)
	if err != nil {
		return nil, err
	}
	return &Live{reader: reader, mapper: mapper, native: n, crds: map[string]liveCRD{}}, nil
}

// Kind tells what is known of a kind, with the contract of validators.Lookup. A definition is read again only when it has changed.
func (l *Live) Kind(ctx context.Context, gk schema.GroupKind) (*validators.Kind, validators.Presence, error) {
	mappings, err := l.mapper.RESTMappings(gk)
	switch {
	case meta.IsNoMatchError(err):
		return nil, validators.Absent, nil
	case err != nil:
		return nil, validators.Unknown, fmt.Errorf("asking the API server for its versions of %s: %w", describe(gk), err)
	}
	var served []string
	for _, m := range mappings {
		if v := m.GroupVersionKind.Version; !slices.Contains(served, v) {
			served = append(served, v)
		}
	}
	slices.SortFunc(served, versionOrder)
	kind := &validators.Kind{Origin: "the API server", Installed: true, Served: served}
	if own := l.native.kind(gk); own != nil {
		kind.Schemas, kind.Retired = own.Schemas, own.Retired
		return kind, validators.Present, nil
	}
	c, err := l.definition(ctx, mappings[0].Resource.Resource+"."+gk.Group)
	if err != nil {
		// The kind is served all the same; its schema is not known. Not found is an aggregated API, whose schema is its own.
		kind.Schemas = unread{fmt.Errorf("reading the CustomResourceDefinition of %s: %w", describe(gk), err)}
		return kind, validators.Present, nil
	}
	d, err := c.load()
	if err != nil {
		return nil, validators.Unknown, err
	}
	kind.Schemas, kind.Retired = d, d.kind.Retired
	return kind, validators.Present, nil
}

// unread are schemas that could not be read.
type unread struct{ err error }

// Schema implements validators.Schemas.
func (u unread) Schema(string) (validators.Schema, error) { return nil, u.err }

func (l *Live) definition(ctx context.Context, name string) (*crd, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	gvk := CustomResourceDefinition.WithVersion("v1")
	head := &metav1.PartialObjectMetadata{}
	head.SetGroupVersionKind(gvk)
	if err := l.reader.Get(ctx, types.NamespacedName{Name: name}, head); err != nil {
		return nil, err
	}
	l.mu.Lock()
	have, ok := l.crds[name]
	l.mu.Unlock()
	if ok && have.uid == head.UID && have.resourceVersion == head.ResourceVersion {
		return have.crd, nil
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(gvk)
	if err := l.reader.Get(ctx, types.NamespacedName{Name: name}, o); err != nil {
		return nil, err
	}
	def := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, def); err != nil {
		return nil, err
	}
	read := liveCRD{uid: def.UID, resourceVersion: def.ResourceVersion, crd: newCRD(def, "the CustomResourceDefinition "+name, false)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.crds[name] = read
	return read.crd, nil
}
