// Package didyoumean finds the known name that a misspelt one was meant to be.
package didyoumean

import (
	"strings"
	"unicode/utf8"

	"github.com/agext/levenshtein"
)

// maxName bounds, in bytes, the names that are compared: the cost is quadratic, and nobody misspells longer ones.
const maxName = 128

// Nearest returns the one of the known names that is nearest to name by edit distance, ignoring case; "" when none is near
// enough to be meant, or when two are equally near. Names that equal name exactly are not suggested.
func Nearest(name string, known []string) string {
	if name == "" || len(name) > maxName {
		return ""
	}
	folded := strings.ToLower(name)
	best, bestDistance, tie := "", allowed(folded)+1, false
	for _, k := range known {
		if k == name || k == "" || len(k) > maxName {
			continue
		}
		d := levenshtein.Distance(folded, strings.ToLower(k), levenshtein.NewParams().MaxCost(bestDistance))
		switch {
		case d < bestDistance:
			best, bestDistance, tie = k, d, false
		case d == bestDistance && best != "" && k != best:
			tie = true
		}
	}
	if tie {
		return ""
	}
	return best
}

// allowed is how many edits still look like a slip: none in a very short name, where a few edits turn it into any other, and a
// third of the rest.
func allowed(name string) int {
	n := utf8.RuneCountInString(name)
	switch {
	case n < 3:
		return 0
	case n < 6:
		return 1
	default:
		return n / 3
	}
}
