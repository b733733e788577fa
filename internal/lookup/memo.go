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
	objects map[objectKey]objectResult
	lists   map[memoListKey]memoListResult
	charts  map[string]chartResult
}

type objectKey struct {
	gk  schema.GroupKind
	key types.NamespacedName
}

type objectResult struct {
	object   *unstructured.Unstructured
	presence validators.Presence
	err      error
}

type memoListKey struct {
	gk        schema.GroupKind
	namespace string
}

type memoListResult struct {
	objects  []*unstructured.Unstructured
	presence validators.Presence
	err      error
}

type chartResult struct {
	chart    validators.Chart
	presence validators.Presence
	err      error
}

// NewMemo returns a Memo over a Lookup.
func NewMemo(l validators.Lookup) *Memo { return &Memo{Lookup: l} }

// Get implements validators.Lookup.
func (m *Memo) Get(
	ctx context.Context, gk schema.GroupKind, key types.NamespacedName,
) (*unstructured.Unstructured, validators.Presence, error) {
	k := objectKey{gk, key}
	m.mu.Lock()
	a, ok := m.objects[k]
	allowed := ok || m.read()
	m.mu.Unlock()
	switch {
	case !allowed:
		return nil, validators.Unknown, m.exceeded()
	case !ok:
		a.object, a.presence, a.err = m.Lookup.Get(ctx, gk, key)
		m.mu.Lock()
		if m.objects == nil {
			m.objects = map[objectKey]objectResult{}
		}
		m.objects[k] = a
		m.mu.Unlock()
	}
	return a.object, a.presence, a.err
}

// read counts a read and reports whether it is within the limit.
func (m *Memo) read() bool {
	m.reads++
	return m.Limit == 0 || m.reads <= m.Limit
}

func (m *Memo) exceeded() error {
	return fmt.Errorf("the object refers to more than %d others", m.Limit)
}

// List implements validators.Lookup.
func (m *Memo) List(ctx context.Context, gk schema.GroupKind, namespace string) ([]*unstructured.Unstructured, validators.Presence, error) {
	k := memoListKey{gk, namespace}
	m.mu.Lock()
	a, ok := m.lists[k]
	allowed := ok || m.read()
	m.mu.Unlock()
	switch {
	case !allowed:
		return nil, validators.Unknown, m.exceeded()
	case !ok:
		a.objects, a.presence, a.err = m.Lookup.List(ctx, gk, namespace)
		m.mu.Lock()
		if m.lists == nil {
			m.lists = map[memoListKey]memoListResult{}
		}
		m.lists[k] = a
		m.mu.Unlock()
	}
	return a.objects, a.presence, a.err
}

// Chart implements validators.Lookup.
func (m *Memo) Chart(ctx context.Context, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	k := fmt.Sprintf("%#v", ref)
	m.mu.Lock()
	a, ok := m.charts[k]
	allowed := ok || m.read()
	m.mu.Unlock()
	switch {
	case !allowed:
		return nil, validators.Unknown, m.exceeded()
	case !ok:
		a.chart, a.presence, a.err = m.Lookup.Chart(ctx, ref)
		if a.chart != nil {
			a.chart = &memoChart{Chart: a.chart}
		}
		m.mu.Lock()
		if m.charts == nil {
			m.charts = map[string]chartResult{}
		}
		m.charts[k] = a
		m.mu.Unlock()
	}
	return a.chart, a.presence, a.err
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
