// Package assets provides what the test control plane consists of: the programs of a
// control plane and of Flux, built once from Go modules and cached outside the
// tree, and the CRDs, as the modules of their projects ship them.
//
// It imports little on purpose: its build prints its progress within seconds
// on a machine with empty caches.
package assets
