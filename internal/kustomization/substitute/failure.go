package substitute

import (
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/fluxcd/pkg/envsubst/parse"

	"github.com/flux-admission/flux-admission/validators"
)

const (
	// maxFailures is how many unreadable expressions of one object are found.
	maxFailures = 20
	// maxExpression limits the text of an expression whose end cannot be told, in bytes.
	maxExpression = 60
)

// escapeFailures copies an object with the expressions escaped that envsubst cannot parse, and returns these.
func escapeFailures(object map[string]any) (map[string]any, []Failure) {
	var failures []Failure
	var walk func(v any, at validators.Path) any
	text := func(s string, at validators.Path) string {
		before := len(failures)
		for len(failures) < maxFailures {
			start, err := failing(s)
			if err == nil {
				break
			}
			failures = append(failures, Failure{Path: at, Expression: expressionAt(s, start), Err: err})
			s = s[:start] + "$" + s[start:]
		}
		slices.Reverse(failures[before:]) // the last one of a text was found first
		return s
	}
	walk = func(v any, at validators.Path) any {
		switch v := v.(type) {
		case string:
			return text(v, at)
		case map[string]any:
			out := make(map[string]any, len(v))
			for _, key := range slices.Sorted(maps.Keys(v)) {
				out[text(key, at)] = walk(v[key], at.Child(key))
			}
			return out
		case []any:
			out := make([]any, len(v))
			for i, item := range v {
				out[i] = walk(item, at.Index(i))
			}
			return out
		}
		return v
	}
	escaped, _ := walk(object, nil).(map[string]any)
	return escaped, failures
}

// failing returns where the last expression starts that envsubst cannot parse, and its error; nil when there is none.
func failing(s string) (int, error) {
	if _, err := parse.Parse(s); err == nil {
		return 0, nil
	}
	starts := expressionStarts(s)
	// The text from an expression on can be parsed if that expression and all later ones can.
	after := sort.Search(len(starts), func(i int) bool {
		_, err := parse.Parse(s[starts[i]:])
		return err == nil
	})
	if after == 0 {
		return 0, nil
	}
	_, err := parse.Parse(s[starts[after-1]:])
	return starts[after-1], err
}

// expressionStarts returns the offsets of ${ in a text, except where an escape precedes it.
func expressionStarts(s string) []int {
	var out []int
	for i := 0; i+1 < len(s); i++ {
		if s[i] == '$' && s[i+1] == '{' && (i == 0 || s[i-1] != '$') {
			out = append(out, i)
		}
	}
	return out
}

// expressionAt returns the text of the expression at an offset: up to its closing brace if that is in the same line.
func expressionAt(s string, start int) string {
	line, _, _ := strings.Cut(s[start:], "\n")
	if end := strings.IndexByte(line, '}'); end >= 0 {
		line = line[:end+1]
	}
	if len(line) > maxExpression {
		line = strings.ToValidUTF8(line[:maxExpression], "")
	}
	return line
}
