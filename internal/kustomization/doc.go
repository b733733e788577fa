// Package kustomization turns a Git tree into the objects that Flux would apply, each with the place in Git that it came from.
//
// It reads files and never writes one: what Flux's kustomize-controller writes into its working copy (a generated or amended
// kustomization.yaml) lives in an overlay in memory. The tree is seen as Flux's artifact would hold it: regular files only, no
// symbolic links, without what .sourceignore and the source's spec.ignore leave out.
//
// What is wrong with the tree is data, not an error: every Kustomization carries its own problems and a build that fails is repaired
// as far as that is possible, so that one missing file does not hide everything else that is wrong.
package kustomization
