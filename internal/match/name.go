package match

import (
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Name reports whether one of the patterns matches the whole name. In a pattern, * matches any characters, none included.
func Name(patterns []string, name string) bool {
	for _, p := range patterns {
		if p == name || strings.Contains(p, "*") && wildcard(p, name) {
			return true
		}
	}
	return false
}

// wildcard matches from left to right: the first part at the start, the last one at the end, the others at their first occurrence.
func wildcard(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	first, last := parts[0], parts[len(parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	rest := name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		_, after, ok := strings.Cut(rest, part)
		if !ok {
			return false
		}
		rest = after
	}
	return true
}

// IsPattern reports whether the text matches more than one name.
func IsPattern(s string) bool { return strings.Contains(s, "*") }

var notInName = regexp.MustCompile(`[^a-z0-9*]+`)

// NamespacePattern returns an error if no namespace can have a name that the pattern matches.
func NamespacePattern(pattern string) error {
	if pattern != "" && len(validation.IsDNS1123Label(strings.ReplaceAll(pattern, "*", "x"))) == 0 {
		return nil
	}
	text := fmt.Sprintf("no namespace can be named %q; must have lower-case letters, digits, - and * only", pattern)
	if like := strings.Trim(notInName.ReplaceAllString(strings.ToLower(pattern), "-"), "-"); like != "" && like != pattern {
		text += fmt.Sprintf("; did you mean %q?", like)
	}
	return fmt.Errorf("%s", text)
}
