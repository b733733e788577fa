// Package kustomization builds the graph of the Flux Kustomizations of a Git tree: it starts at the entry points,
// builds every Kustomization as Flux's kustomize-controller does, and follows the Kustomizations among the objects.
// Every object keeps its position in Git.
//
// What is wrong with the tree is data, not an error: every Kustomization carries its own problems.
//
// The package is the top of the Kustomization side. Its parts, which do not know it, are sourcetree (files and
// artifacts), build (kustomize), substitute (post-build variables) and entrypoint.
package kustomization
