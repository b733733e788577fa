// Package docs holds what people read. The pages that the program itself shows are embedded from here, so that there is one copy of them.
package docs

import "embed"

// Rules has the page of every rule, at rules/NAME.md.
//
//go:embed rules/*.md
var Rules embed.FS
