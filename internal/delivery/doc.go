// Package delivery finds out why objects of a Flux cluster are not ready. It makes a graph of what waits for what from
// the objects alone, and returns the roots: the objects that somebody has to repair, with everything that waits behind
// each.
//
// Every edge has its evidence: the field or the condition that it comes from. A state that cannot be determined is
// [Unknown], with the reason; it is never guessed. The result depends on the objects and on [Input.Now] only, not on the
// order of the objects.
package delivery
