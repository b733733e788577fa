// Package sourcetree reads a directory as Flux's source-controller packs it into an artifact: regular files only, no
// symbolic links, without what .sourceignore and the source's spec.ignore leave out. It reads files and never writes
// one.
//
// Every file is read and parsed at most once, and within Limits. What is wrong with a file is data, not an error: a
// file keeps its problems beside the documents that could be read.
package sourcetree
