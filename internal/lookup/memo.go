package lookup

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

// Memo is a Lookup that reads each object, list and chart from another Lookup only once. It is for one review: several rules read
// the same chart and the same Secrets, and for an update each rule is evaluated twice. It is safe for concurrent use; concurrent
// reads of one object may both reach the other Lookup.
type Memo struct {
	validators.Lookup
	// Limit is how many objects, lists and charts are read; what is looked up after them is Unknown. 0 is no limit.
	Limit int

	mu      sync.Mutex
	reads   int
	objects map[objectKey]memoResult[*unstructured.Unstructured]
	lists   map[memoListKey]memoResult[[]*unstructured.Unstructured]
	indexed map[memoIndexKey]memoResult[[]*unstructured.Unstructured]
	charts  map[string]memoResult[validators.Chart]
}

type objectKey struct {
	gk  schema.GroupKind
	key types.NamespacedName
}

// memoResult is the result of a read: an object, a list or a chart.
type memoResult[V any] struct {
	value    V
	presence validators.Presence
	err      error
}

type memoListKey struct {
	gk        schema.GroupKind
	namespace string
}

type memoIndexKey struct{ index, key string }

// NewMemo returns a Memo over a Lookup.
func NewMemo(l validators.Lookup) *Memo { return &Memo{Lookup: l} }

// Get implements validators.Lookup.
func (m *Memo) Get(
	ctx context.Context, gk schema.GroupKind, key types.NamespacedName,
) (*unstructured.Unstructured, validators.Presence, error) {
	return remember(m, &m.objects, objectKey{gk, key}, func() (*unstructured.Unstructured, validators.Presence, error) {
		return m.Lookup.Get(ctx, gk, key)
	})
}

// List implements validators.Lookup.
func (m *Memo) List(ctx context.Context, gk schema.GroupKind, namespace string) ([]*unstructured.Unstructured, validators.Presence, error) {
	return remember(m, &m.lists, memoListKey{gk, namespace}, func() ([]*unstructured.Unstructured, validators.Presence, error) {
		return m.Lookup.List(ctx, gk, namespace)
	})
}

// ByIndex implements validators.Indexed.
func (m *Memo) ByIndex(
	ctx context.Context, x *validators.Index, key string,
) ([]*unstructured.Unstructured, validators.Presence, error) {
	return remember(m, &m.indexed, memoIndexKey{x.Name, key}, func() ([]*unstructured.Unstructured, validators.Presence, error) {
		return validators.ByIndex(ctx, m.Lookup, x, key)
	})
}

// Chart implements validators.Lookup.
func (m *Memo) Chart(ctx context.Context, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	return remember(m, &m.charts, fmt.Sprintf("%#v", ref), func() (validators.Chart, validators.Presence, error) {
		chart, presence, err := m.Lookup.Chart(ctx, ref)
		if chart != nil {
			chart = &memoChart{Chart: chart}
		}
		return chart, presence, err
	})
}

// remember returns a result that is known, or reads it if the limit allows another read.
func remember[K comparable, V any](
	m *Memo, known *map[K]memoResult[V], key K, read func() (V, validators.Presence, error),
) (V, validators.Presence, error) {
	m.mu.Lock()
	r, ok := (*known)[key]
	allowed := ok || m.read()
	m.mu.Unlock()
	switch {
	case !allowed:
		return r.value, validators.Unknown, fmt.Errorf("the object refers to more than %d others", m.Limit)
	case !ok:
		r.value, r.presence, r.err = read()
		m.mu.Lock()
		if *known == nil {
			*known = map[K]memoResult[V]{}
		}
		(*known)[key] = r
		m.mu.Unlock()
	}
	return r.value, r.presence, r.err
}

// read counts a read and reports whether it is within the limit.
func (m *Memo) read() bool {
	m.reads++
	return m.Limit == 0 || m.reads <= m.Limit
}

// memoChart is a chart that caches the results of Validate.
type memoChart struct {
	validators.Chart

	mu      sync.Mutex
	results []valuesResult
}

type valuesResult struct {
	values validators.Values
	result validators.ValuesResult
	err    error
}

// maxResults limits the cached results: those of the object, of the stored one, and some attempts at a fix.
const maxResults = 4

// Validate implements validators.Chart. Values are equal if their map is the same one: rules take it from the object
// that they evaluate.
func (c *memoChart) Validate(ctx context.Context, v validators.Values) (validators.ValuesResult, error) {
	c.mu.Lock()
	for _, known := range c.results {
		if sameValues(known.values, v) {
			c.mu.Unlock()
			return known.result, known.err
		}
	}
	c.mu.Unlock()
	result, err := c.Chart.Validate(ctx, v)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.results) < maxResults && ctx.Err() == nil {
		c.results = append(c.results, valuesResult{v, result, err})
	}
	return result, err
}

func sameValues(a, b validators.Values) bool {
	return a.Namespace == b.Namespace && slices.Equal(a.From, b.From) &&
		reflect.ValueOf(a.Inline).Pointer() == reflect.ValueOf(b.Inline).Pointer()
}
