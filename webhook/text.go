package webhook

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flux-admission/flux-admission/validators"
)

// Bounds of what an answer carries. The API server cuts warnings to 256 characters each once they are more than 4,096 together; Flux puts a
// denial's message into a condition, which holds 32,768.
const (
	maxMessage    = 16 << 10
	maxCauses     = 200
	maxWarning    = 256
	maxWarnings   = 4 << 10
	maxAnnotation = 4 << 10
)

// immutable matches what makes Flux take an error for a change of an immutable field. With spec.force, or the force annotation, Flux then
// deletes the stored object and creates it anew: no text of ours may look like that, not even where a tenant chose a key's name.
// See IsImmutableError in github.com/fluxcd/pkg/ssa/errors.
var immutable = regexp.MustCompile(`(is\s)immutable|immutable(\sfield)`)

// defuse quotes the word that Flux looks for.
func defuse(s string) string {
	if !strings.Contains(s, "immutable") {
		return s
	}
	return immutable.ReplaceAllString(s, "${1}'immutable'${2}")
}

// plain returns the text on one line and without control characters: names in it come from a tenant and are printed on a terminal. The API
// server drops a warning that has any.
func plain(s string) string {
	clean := true
	for _, r := range s {
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean && utf8.ValidString(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError || unicode.IsControl(r) || !unicode.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, s)
}

// cut shortens a text to at most limit bytes, at the end of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	const ellipsis = "…"
	s = s[:limit-len(ellipsis)]
	for len(s) > 0 && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]) {
		s = s[:len(s)-1]
	}
	return s + ellipsis
}

// label names a rule: "KS001 kustomization-namespace".
func label(m *validators.Meta) string { return m.ID + " " + m.Name }

// place puts the path before a message unless the message begins with it already.
func place(f *validators.Finding) string {
	path := f.Path.String()
	if path == "" || strings.HasPrefix(f.Message, path) {
		return plain(f.Message)
	}
	return plain(path + ": " + f.Message)
}

// denial returns the text of a denial: every finding with where it is, what to write instead and which rule says so, and each rule or failure
// that refuses for want of a verdict. kubectl prints it as it is, Flux puts it into the Ready condition.
//
//	metadata.namespace: Kustomization is in namespace airflow, allowed is flux-system. Set … (KS001 kustomization-namespace)
func denial(findings []*validators.Finding, failures []string) string {
	var b strings.Builder
	several := len(findings)+len(failures) > 1
	if several {
		fmt.Fprintf(&b, "%d problems:", len(findings)+len(failures))
	}
	line := func(text string) bool {
		if several {
			text = "\n- " + text
		}
		if b.Len()+len(text) > maxMessage {
			return false
		}
		b.WriteString(text)
		return true
	}
	for i, f := range findings {
		text := place(f)
		// Findings of one rule that are all repaired in the same way say so once, at the last of them.
		if f.Fix != "" && (i+1 == len(findings) || findings[i+1].Rule != f.Rule || findings[i+1].Fix != f.Fix) {
			text += ". " + plain(f.Fix)
		}
		if !line(text + " (" + label(f.Rule) + ")") {
			fmt.Fprintf(&b, "\n- and %d more", len(findings)-i+len(failures))
			return defuse(b.String())
		}
	}
	for i, f := range failures {
		if !line(plain(f)) {
			fmt.Fprintf(&b, "\n- and %d more", len(failures)-i)
			break
		}
	}
	return defuse(b.String())
}

// causes returns a cause per finding, for programs.
func causes(findings []*validators.Finding, object map[string]any) []metav1.StatusCause {
	out := make([]metav1.StatusCause, 0, min(len(findings), maxCauses))
	for _, f := range findings {
		if len(out) == maxCauses {
			break
		}
		kind := metav1.CauseTypeFieldValueInvalid
		if len(f.Path) > 0 && f.Path.Lookup(object) == nil {
			kind = metav1.CauseTypeFieldValueRequired
		}
		out = append(out, metav1.StatusCause{
			Type: kind, Field: cut(plain(f.Path.String()), maxWarning), Message: defuse(cut(plain(f.Message+" ("+label(f.Rule)+")"), maxMessage/16)),
		})
	}
	return out
}

// warning is a finding as one line of at most 256 bytes, the rule first: it is what survives being cut.
func warning(f *validators.Finding) string {
	return defuse(cut(f.Rule.ID+" "+place(f), maxWarning-4))
}

// bounded returns as many of the lines as fit, and how many do not as the last one. defuse may lengthen a line a little, so each stays a
// little below the API server's own bound.
func bounded(lines []string) []string {
	total := 0
	for i, l := range lines {
		if total += utf8.RuneCountInString(l); total > maxWarnings-100 {
			return append(lines[:i:i], fmt.Sprintf("and %d more", len(lines)-i))
		}
	}
	return lines
}

// annotation joins lines to the value of an audit annotation.
func annotation(lines []string) string {
	return cut(strings.Join(lines, "\n"), maxAnnotation)
}
