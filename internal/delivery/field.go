package delivery

import "time"

// The functions below read a field without copying it. A field of another type is empty.

func at(o map[string]any, path ...string) any {
	var v any = o
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func stringAt(o map[string]any, path ...string) string {
	s, _ := at(o, path...).(string)
	return s
}

func boolAt(o map[string]any, path ...string) bool {
	b, _ := at(o, path...).(bool)
	return b
}

func intAt(o map[string]any, path ...string) int64 {
	switch n := at(o, path...).(type) {
	case int64:
		return n
	case int:
		return int64(n)
	case float64:
		return int64(n)
	}
	return 0
}

func mapAt(o map[string]any, path ...string) map[string]any {
	m, _ := at(o, path...).(map[string]any)
	return m
}

func listAt(o map[string]any, path ...string) []any {
	l, _ := at(o, path...).([]any)
	return l
}

// durationAt returns a duration; otherwise if there is none.
func durationAt(o map[string]any, otherwise time.Duration, path ...string) time.Duration {
	d, err := time.ParseDuration(stringAt(o, path...))
	if err != nil {
		return otherwise
	}
	return d
}

func timeAt(o map[string]any, path ...string) time.Time {
	t, _ := time.Parse(time.RFC3339, stringAt(o, path...))
	return t
}
