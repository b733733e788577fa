// Package docs holds what people read. The pages that the program itself shows are embedded from here, so that there is one copy of them.
package docs

import _ "embed"

// RuleExamples is a txtar archive with an object that breaks the rule, NAME.yaml for each rule. The first line of each is a comment: what is wrong.
//
//go:embed rules/examples.txtar
var RuleExamples []byte
