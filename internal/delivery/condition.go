package delivery

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// condition is a condition of an object.
type condition struct {
	kind, status, reason, message string
	observedGeneration            int64
	since                         time.Time
}

// conditions returns status.conditions of an object.
func conditions(o *unstructured.Unstructured) []condition {
	list := listAt(o.Object, "status", "conditions")
	out := make([]condition, 0, len(list))
	for _, item := range list {
		m, ok := item.(map[string]any)
		if !ok {
			continue
		}
		c := condition{
			kind: stringAt(m, "type"), status: stringAt(m, "status"), reason: stringAt(m, "reason"), message: stringAt(m, "message"),
			observedGeneration: intAt(m, "observedGeneration"),
		}
		c.since, _ = time.Parse(time.RFC3339, stringAt(m, "lastTransitionTime"))
		out = append(out, c)
	}
	return out
}

// find returns the condition of a type; nil if there is none.
func find(list []condition, kind string) *condition {
	for i := range list {
		if list[i].kind == kind {
			return &list[i]
		}
	}
	return nil
}

// is reports whether the condition exists and has the status.
func (c *condition) is(status string) bool { return c != nil && c.status == status }

// The functions below read a field without copying it. A field of another type is empty.

func at(o map[string]any, path ...string) any {
	var v any = o
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func stringAt(o map[string]any, path ...string) string {
	s, _ := at(o, path...).(string)
	return s
}

func boolAt(o map[string]any, path ...string) bool {
	b, _ := at(o, path...).(bool)
	return b
}

func intAt(o map[string]any, path ...string) int64 {
	switch n := at(o, path...).(type) {
	case int64:
		return n
	case int:
		return int64(n)
	case float64:
		return int64(n)
	}
	return 0
}

func mapAt(o map[string]any, path ...string) map[string]any {
	m, _ := at(o, path...).(map[string]any)
	return m
}

func listAt(o map[string]any, path ...string) []any {
	l, _ := at(o, path...).([]any)
	return l
}

// durationAt returns a duration; otherwise if there is none.
func durationAt(o map[string]any, otherwise time.Duration, path ...string) time.Duration {
	d, err := time.ParseDuration(stringAt(o, path...))
	if err != nil {
		return otherwise
	}
	return d
}

func timeAt(o map[string]any, path ...string) time.Time {
	t, _ := time.Parse(time.RFC3339, stringAt(o, path...))
	return t
}
