package report

import (
	"regexp"
	"strings"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// The parts of a message that are names: quoted texts, addresses, paths, "namespace/name" and what follows a kind.
var (
	quotedName = regexp.MustCompile(`"[^"]*"|'[^']*'`)
	pathName   = regexp.MustCompile(`[^\s,;()]*/[^\s,;()]+`)
	kindName   = regexp.MustCompile(`\b([A-Z][a-z]+[A-Za-z]*) [a-z0-9][-a-z0-9.${}_]*[-0-9.${}_][-a-z0-9.${}_]*`)
	nameList   = regexp.MustCompile(`…(, …)+`)
)

// withoutNames returns a message without the names in it, so that messages about different objects are equal.
func withoutNames(message string) string {
	message = quotedName.ReplaceAllString(message, "…")
	message = pathName.ReplaceAllString(message, "…")
	message = kindName.ReplaceAllString(message, "$1 …")
	return nameList.ReplaceAllString(message, "…")
}

// causeKey is something that findings with one cause have in common.
type causeKey struct {
	rule       string
	action     v1alpha1.Action
	suppressed bool
	// message and fix are those of the findings, or the name of their group.
	message, fix string
	// position and path are where the field is written; the message is then without names. Nth tells apart the findings
	// of one object that differ in names only.
	position validators.Position
	path     string
	object   Object
	nth      int
}

// setCauses sets the cause of each finding, and returns the number of causes of those that are not suppressed. Findings of
// one rule and action have one cause if
//   - their messages and fixes are equal, or they are in one group,
//   - they are about the same field at the same position, which several objects are built from,
//   - they are about the same field of the same object, which is in several places.
//
// In the last two cases their messages may differ in names.
func setCauses(findings []Finding) int {
	parents := make([]int, len(findings))
	for i := range parents {
		parents[i] = i
	}
	root := func(i int) int {
		for parents[i] != i {
			parents[i] = parents[parents[i]]
			i = parents[i]
		}
		return i
	}
	first := map[causeKey]int{}
	join := func(i int, k causeKey) {
		j, ok := first[k]
		if !ok {
			first[k] = i
			return
		}
		// The root is the first finding of the cause in the order of the report.
		a, b := root(i), root(j)
		parents[max(a, b)] = min(a, b)
	}
	repeated := map[causeKey]int{}
	for i := range findings {
		f := &findings[i]
		common := causeKey{rule: f.Rule, action: f.Action, suppressed: !f.Counts()}
		same := common
		same.message, same.fix = f.Message, f.Fix
		if f.Group != "" {
			same.message, same.fix = "\x00"+f.Group, ""
		}
		join(i, same)
		source := f.Source
		if source.File == "" {
			source = f.Position()
		}
		if source.Line == 0 {
			continue
		}
		common.message, common.path = withoutNames(f.Message), f.Path
		once := common
		once.position, once.object = source, f.Object
		once.message += "\x00" + f.Kustomization
		common.nth = repeated[once]
		repeated[once]++
		written, object := common, common
		written.position = source
		join(i, written)
		object.object = f.Object
		join(i, object)
	}
	causes := map[int]bool{}
	for i := range findings {
		at := root(i)
		findings[i].Cause = findings[at].Fingerprint
		if findings[i].Counts() {
			causes[at] = true
		}
	}
	return len(causes)
}

// maxNamed is how many of the positions, objects or rules that are written as one are named.
const maxNamed = 3

// listed joins the first few of a list, and reports how many are left out by an ellipsis.
func listed(names []string) string {
	text := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if len(names) > maxNamed {
		text += ", …"
	}
	return text
}
