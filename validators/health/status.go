// Package health holds the rules on states that last: what the status of an object shows to be failing, behind or stuck. Only the
// audit evaluates most of them, since a write cannot repair them and need not wait for it.
//
// What the status does not show is no finding: a field that is missing, a message that is not known, or an object that its
// controller works on.
package health

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/validators"
)

// Component is the component of the manifests that has the background audit evaluate the rules on kinds of others than Flux.
const Component = "audit-health"

// AfterParams are the parameters of a rule on a state that lasts.
type AfterParams struct {
	// After is how long the state lasts before it is reported, such as 30m, 2h or 1h30m.
	// +kubebuilder:validation:Pattern=`^([0-9]+(h|m|s))+$`
	// +kubebuilder:validation:MaxLength=32
	// +optional
	After string `json:"after,omitempty"`

	after time.Duration
}

// Compile reads the duration.
func (a *AfterParams) Compile() error {
	after, err := time.ParseDuration(a.After)
	if err != nil {
		return fmt.Errorf("after: %w", err)
	}
	if after <= 0 {
		return errors.New("after: must be more than 0")
	}
	a.after = after
	return nil
}

// after returns a function that returns the default parameters of a rule.
func after(d time.Duration) func() any {
	text := d.String() // 1h30m0s for 1h30m, and 24h0m0s for 24h
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return func() any { return &AfterParams{After: text, after: d} }
}

// outdated reports whether a condition is about an older generation of the object.
func outdated(c *condition.Condition, o *unstructured.Unstructured) bool {
	return c.ObservedGeneration != 0 && c.ObservedGeneration < o.GetGeneration()
}

// pathOf returns the path of a condition in its object.
func pathOf(c *condition.Condition) validators.Path {
	return validators.NewPath("status", "conditions").Index(c.Index)
}

// describe returns the reason and message of a condition.
func describe(c *condition.Condition) string {
	if c.Message == "" {
		return c.Reason
	}
	return c.Reason + ": " + short(c.Message)
}

// maxQuote is how much of a message of a controller is quoted, in bytes.
const maxQuote = 300

// short returns a message of a controller on one line, cut to maxQuote.
func short(message string) string {
	message = strings.Join(strings.Fields(message), " ")
	if len(message) <= maxQuote {
		return strings.TrimSuffix(message, ".")
	}
	return strings.ToValidUTF8(message[:maxQuote], "") + "…"
}

// field returns a field without copying it; nil if there is none.
func field(o *unstructured.Unstructured, path ...string) any {
	return validators.NewPath(path...).Lookup(o.Object)
}

func text(o *unstructured.Unstructured, path ...string) string {
	s, _ := field(o, path...).(string)
	return s
}

func isTrue(o *unstructured.Unstructured, path ...string) bool {
	b, _ := field(o, path...).(bool)
	return b
}

func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// stamp returns a time as messages have it: it does not change while the state lasts, as a duration would.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// durationAt returns a duration of the spec; otherwise if there is none.
func durationAt(o *unstructured.Unstructured, otherwise time.Duration, path ...string) time.Duration {
	d, err := time.ParseDuration(text(o, path...))
	if err != nil {
		return otherwise
	}
	return d
}
