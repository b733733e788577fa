// Package suggest finds the known name that a misspelt one was meant to be.
package suggest

import (
	"strings"
	"unicode/utf8"
)

// maxName bounds, in bytes, the names that are compared: the cost is quadratic, and nobody misspells longer ones.
const maxName = 128

// Nearest returns the one of the known names that is nearest to name by edit distance, ignoring case, where two letters swapped are one edit; "" when none is near
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
		d := distance([]rune(folded), []rune(strings.ToLower(k)))
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

// distance is the optimal string alignment distance: the least number of letters inserted, left out, replaced, or swapped with the next one.
func distance(a, b []rune) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(replaced, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
