// Package condition reads the conditions in the status of an object, as controllers write them.
package condition

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Condition is an entry of status.conditions. A field that is missing, or of another type, is empty.
type Condition struct {
	// Index is its place in status.conditions.
	Index                         int
	Type, Status, Reason, Message string
	ObservedGeneration            int64
	// Since is lastTransitionTime; zero if that is no time.
	Since time.Time
}

// Of returns status.conditions of an object. What is no condition is left out.
func Of(o *unstructured.Unstructured) []*Condition {
	status, _ := o.Object["status"].(map[string]any)
	list, _ := status["conditions"].([]any)
	out := make([]*Condition, 0, len(list))
	for i, item := range list {
		m, ok := item.(map[string]any)
		if !ok {
			continue
		}
		text := func(name string) string { s, _ := m[name].(string); return s }
		c := &Condition{Index: i, Type: text("type"), Status: text("status"), Reason: text("reason"), Message: text("message")}
		switch n := m["observedGeneration"].(type) {
		case int64:
			c.ObservedGeneration = n
		case int:
			c.ObservedGeneration = int64(n)
		case float64:
			c.ObservedGeneration = int64(n)
		}
		c.Since, _ = time.Parse(time.RFC3339, text("lastTransitionTime"))
		out = append(out, c)
	}
	return out
}

// Find returns the condition of a type; nil if there is none.
func Find(list []*Condition, kind string) *Condition {
	for _, c := range list {
		if c.Type == kind {
			return c
		}
	}
	return nil
}

// Is reports whether the condition exists and has the status.
func (c *Condition) Is(status string) bool { return c != nil && c.Status == status }

// Evidence names the condition: "condition Ready=False, reason BuildFailed".
func (c *Condition) Evidence() string {
	if c.Reason == "" {
		return fmt.Sprintf("condition %s=%s", c.Type, c.Status)
	}
	return fmt.Sprintf("condition %s=%s, reason %s", c.Type, c.Status, c.Reason)
}
