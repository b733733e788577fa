package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/validators"
)

// MissingInputs are the names of missing inputs, by what they are.
type MissingInputs map[string]map[string]bool

// Add adds a missing input.
func (m MissingInputs) Add(input *validators.MissingInput) {
	if m[input.What] == nil {
		m[input.What] = map[string]bool{}
	}
	m[input.What][input.Name] = true
}

// Skipped returns what was not evaluated for want of inputs, once for each sort. The function returns what cannot be evaluated without
// inputs of a sort and how to give them; an empty text for a sort that it does not know.
func (m MissingInputs) Skipped(describe func(what string) (text, remedy string)) []Skipped {
	var out []Skipped
	for _, what := range slices.Sorted(maps.Keys(m)) {
		text, remedy := describe(what)
		if text == "" {
			text = "the " + what + " is missing"
		}
		names := slices.Sorted(maps.Keys(m[what]))
		reason := fmt.Sprintf("%s (%d): %s", text, len(names), strings.Join(names, ", "))
		if remedy != "" {
			reason += "; " + remedy
		}
		out = append(out, Skipped{Reason: reason, Unknown: true})
	}
	return out
}
