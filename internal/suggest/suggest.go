// Package suggest finds the existing name that a misspelled one is likely to mean. It holds the project's only edit
// distance.
package suggest

import (
	"strings"
	"unicode/utf8"
)

// maxName and maxPath bound, in bytes, what is compared: the cost is quadratic, and longer ones are hardly misspelled
// names.
const (
	maxName = 128
	maxPath = 512
)

// Nearest returns the known name with the smallest edit distance to name, ignoring case; two letters swapped are one
// edit. It returns "" when none is near enough, or when two are equally near. A name that equals name exactly is not
// suggested.
func Nearest(name string, known []string) string {
	if name == "" || len(name) > maxName {
		return ""
	}
	lower := []rune(strings.ToLower(name))
	best, bestDistance, tie := "", maxEdits(string(lower))+1, false
	for _, k := range known {
		if k == name || k == "" || len(k) > maxName {
			continue
		}
		other := []rune(strings.ToLower(k))
		if diff := len(lower) - len(other); diff > bestDistance || -diff > bestDistance {
			continue // at least so many letters were inserted or left out
		}
		d := distance(lower, other)
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

// NearestPath returns the existing path with the smallest edit distance to a missing one; "" when none is near
// enough. Paths are long and share much of their text, so a quarter of it may differ. Of equally near paths it
// returns the first in alphabetical order.
func NearestPath(missing string, existing []string) string {
	if len(missing) > maxPath {
		return ""
	}
	limit := max(2, len(missing)/4)
	best, bestDistance := "", limit+1
	for _, e := range existing {
		if diff := len(missing) - len(e); diff > limit || -diff > limit {
			continue // at least so many letters were inserted or left out
		}
		d := distance([]rune(missing), []rune(e))
		if d < bestDistance || d == bestDistance && best != "" && e < best {
			best, bestDistance = e, d
		}
	}
	return best
}

// maxEdits is how many edits still look like a typo: none in a very short name, which a few edits turn into any
// other, and a third of a long one.
func maxEdits(name string) int {
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

// distance is the optimal string alignment distance: the least number of letters that are inserted, left out,
// replaced, or swapped with the next one.
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
