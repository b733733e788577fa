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

// Memo is a Lookup that asks another one for each object and each chart only once. It serves one review: several rules ask for the same chart and
// the same Secrets, and an update has every rule asked twice. It is safe for concurrent use; questions that come at the same time may be asked twice.
type Memo struct {
	validators.Lookup

	mu      sync.Mutex
	objects map[objectKey]objectAnswer
	charts  map[string]chartAnswer
}

type objectKey struct {
	gk  schema.GroupKind
	key types.NamespacedName
}

type objectAnswer struct {
	object   *unstructured.Unstructured
	presence validators.Presence
	err      error
}

type chartAnswer struct {
	chart    validators.Chart
	presence validators.Presence
	err      error
}

// NewMemo returns a Memo over a Lookup.
func NewMemo(l validators.Lookup) *Memo { return &Memo{Lookup: l} }

// Get implements validators.Lookup.
func (m *Memo) Get(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) (*unstructured.Unstructured, validators.Presence, error) {
	k := objectKey{gk, key}
	m.mu.Lock()
	a, ok := m.objects[k]
	m.mu.Unlock()
	if !ok {
		a.object, a.presence, a.err = m.Lookup.Get(ctx, gk, key)
		m.mu.Lock()
		if m.objects == nil {
			m.objects = map[objectKey]objectAnswer{}
		}
		m.objects[k] = a
		m.mu.Unlock()
	}
	return a.object, a.presence, a.err
}

// Chart implements validators.Lookup.
func (m *Memo) Chart(ctx context.Context, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	k := fmt.Sprintf("%#v", ref)
	m.mu.Lock()
	a, ok := m.charts[k]
	m.mu.Unlock()
	if !ok {
		a.chart, a.presence, a.err = m.Lookup.Chart(ctx, ref)
		if a.chart != nil {
			a.chart = &judgedChart{Chart: a.chart}
		}
		m.mu.Lock()
		if m.charts == nil {
			m.charts = map[string]chartAnswer{}
		}
		m.charts[k] = a
		m.mu.Unlock()
	}
	return a.chart, a.presence, a.err
}

// judgedChart is a chart that remembers its verdicts: several rules ask for the same one.
type judgedChart struct {
	validators.Chart

	mu       sync.Mutex
	verdicts []judgedValues
}

type judgedValues struct {
	values  validators.Values
	verdict validators.ValuesResult
	err     error
}

// maxJudged is the number of verdicts that are remembered: that on the object, that on the stored one, and some to try.
const maxJudged = 4

// Validate implements validators.Chart. Values are the same when they are the very map and objects: rules take them from the object that they look at.
func (c *judgedChart) Validate(ctx context.Context, v validators.Values) (validators.ValuesResult, error) {
	c.mu.Lock()
	for _, known := range c.verdicts {
		if sameValues(known.values, v) {
			c.mu.Unlock()
			return known.verdict, known.err
		}
	}
	c.mu.Unlock()
	verdict, err := c.Chart.Validate(ctx, v)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.verdicts) < maxJudged && ctx.Err() == nil {
		c.verdicts = append(c.verdicts, judgedValues{v, verdict, err})
	}
	return verdict, err
}

func sameValues(a, b validators.Values) bool {
	return a.Namespace == b.Namespace && reflect.ValueOf(a.Inline).Pointer() == reflect.ValueOf(b.Inline).Pointer() && slices.Equal(a.From, b.From)
}
