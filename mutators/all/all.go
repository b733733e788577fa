// Package all lists the mutators of the product, in the order in which they run.
package all

import (
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/mutators/targetnamespace"
)

// Mutators returns every mutator.
func Mutators() []*mutators.Mutator {
	return []*mutators.Mutator{
		targetnamespace.Mutator,
	}
}
