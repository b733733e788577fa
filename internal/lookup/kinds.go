package lookup

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
)

// WithKinds returns a Lookup that takes kinds from kinds, and everything else from l.
func WithKinds(l validators.Lookup, kinds Kinds) validators.Lookup { return withKinds{l, kinds} }

type withKinds struct {
	validators.Lookup
	kinds Kinds
}

// Kind implements validators.Lookup.
func (w withKinds) Kind(ctx context.Context, gk schema.GroupKind) (*validators.Kind, validators.Presence, error) {
	return w.kinds.Kind(ctx, gk)
}

// ByIndex implements validators.Indexed.
func (w withKinds) ByIndex(
	ctx context.Context, x *validators.Index, key string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	return validators.ByIndex(ctx, w.Lookup, x, key)
}
