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

// Limits of a response, in bytes except for maxCauses. The API server truncates each warning to 256 characters if all
// of them have more than 4,096; Flux puts the message of a denial into a condition, which holds 32,768.
const (
	maxMessage    = 16 << 10
	maxCauses     = 200
	maxWarning    = 256
	maxWarnings   = 4 << 10
	maxAnnotation = 4 << 10
)

// immutable matches what makes Flux take an error for a change of an immutable field. With spec.force, or the force
// annotation, Flux then deletes the stored object and creates it again: no message may match, even where a tenant chose
// the name of a key. See IsImmutableError in github.com/fluxcd/pkg/ssa/errors.
var immutable = regexp.MustCompile(`(is\s)immutable|immutable(\sfield)`)

// escapeImmutable quotes the word that Flux matches.
func escapeImmutable(s string) string {
	if !strings.Contains(s, "immutable") {
		return s
	}
	return immutable.ReplaceAllString(s, "${1}'immutable'${2}")
}

// plain returns the text on one line without control characters: names in it come from a tenant and are printed on a
// terminal. The API server drops a warning with control characters.
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

// cut truncates a text to at most limit bytes, between two characters.
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

// label returns a rule as "KS001 kustomization-namespace".
func label(m *validators.Meta) string { return m.ID + " " + m.Name }

// located returns the message of a finding after its path, unless the message begins with the path.
func located(f *validators.Finding) string {
	path := f.Path.String()
	if path == "" || strings.HasPrefix(f.Message, path) {
		return plain(f.Message)
	}
	return plain(path + ": " + f.Message)
}

// denial returns the message of a denial: each finding with its path, its fix and its rule, then the failures. kubectl
// prints it as it is, Flux puts it into the Ready condition.
//
//	metadata.namespace: namespace "airflow" is not allowed; must be "flux-system". … (KS001 kustomization-namespace)
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
		text := located(f)
		// Consecutive findings of one rule with the same fix have it once, after the last of them.
		if f.Fix != "" && (i+1 == len(findings) || findings[i+1].Rule != f.Rule || findings[i+1].Fix != f.Fix) {
			text += ". " + plain(f.Fix)
		}
		if !line(text + " (" + label(f.Rule) + ")") {
			fmt.Fprintf(&b, "\n- and %d more", len(findings)-i+len(failures))
			return escapeImmutable(b.String())
		}
	}
	for i, f := range failures {
		if !line(plain(f)) {
			fmt.Fprintf(&b, "\n- and %d more", len(failures)-i)
			break
		}
	}
	return escapeImmutable(b.String())
}

// causes returns a cause per finding, for clients that are programs.
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
			Type: kind, Field: cut(plain(f.Path.String()), maxWarning),
			Message: escapeImmutable(cut(plain(f.Message+" ("+label(f.Rule)+")"), maxMessage/16)),
		})
	}
	return out
}

// warning returns a finding as one line of at most 256 bytes. The rule is first, so that it is never truncated.
func warning(f *validators.Finding) string {
	return escapeImmutable(cut(f.Rule.ID+" "+located(f), maxWarning-4))
}

// limitWarnings returns the warnings that fit into a response, followed by the number of the others. escapeImmutable
// adds two bytes to a line, so that each stays below the API server's limit.
func limitWarnings(lines []string) []string {
	total := 0
	for i, l := range lines {
		if total += utf8.RuneCountInString(l); total > maxWarnings-100 {
			return append(lines[:i:i], fmt.Sprintf("and %d more", len(lines)-i))
		}
	}
	return lines
}

// annotation joins lines into the value of an audit annotation.
func annotation(lines []string) string {
	return cut(strings.Join(lines, "\n"), maxAnnotation)
}
