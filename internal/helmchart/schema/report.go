package schema

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/validators"
)

// The longest lists of names or values in a message.
const (
	maxListed      = 12
	maxListedBytes = 160
)

func (e *evaluator) add(p Problem) {
	if len(e.problems) >= maxProblems {
		return
	}
	e.problems = append(e.problems, problem{Problem: p, sortKey: p.Path.Pointer()})
}

// report adds a problem of the current value.
func (e *evaluator) report(report bool, keyword, message string) {
	if !report {
		return
	}
	e.add(Problem{Path: slices.Clone(e.path), Pointer: e.path.Pointer(), Keyword: keyword, Message: message})
}

// reportSuggesting reports a value that is none of the allowed ones. The suggestion is one of these, so that it does
// not reveal the value.
func (e *evaluator) reportSuggesting(report bool, keyword, message string, v any, allowed []any) {
	if !report {
		return
	}
	before := len(e.problems)
	e.report(true, keyword, message)
	s, ok := v.(string)
	if !ok || len(e.problems) == before {
		return
	}
	e.problems[before].wrong, e.problems[before].values = s, allowed
}

// missing reports a property that is missing.
func (e *evaluator) missing(report bool, keyword, message, name string) {
	if !report {
		return
	}
	e.add(Problem{Path: e.path.Child(name), Pointer: e.path.Pointer(), Keyword: keyword, Message: message})
}

// unknownName reports a property whose name the schema does not allow.
func (e *evaluator) unknownName(report bool, n *node, keyword, message, name string) {
	if !report {
		return
	}
	before := len(e.problems)
	e.add(Problem{Path: e.path.Child(name), Pointer: e.path.Pointer(), Keyword: keyword, Message: message})
	if len(e.problems) > before {
		e.problems[before].wrong, e.problems[before].names = name, n
	}
}

// suggest adds the most similar name to a problem, and the allowed names if they are few. The names of a schema are
// collected once.
func (e *evaluator) suggest(p *problem, names map[*node][]string) {
	switch {
	case p.names != nil:
		allowed, ok := names[p.names]
		if !ok {
			allowed = allowedNames(p.names)
			names[p.names] = allowed
		}
		p.Suggestion = suggest.Nearest(p.wrong, allowed)
		if len(allowed) <= maxListed && len(strings.Join(allowed, ", ")) <= maxListedBytes {
			p.Allowed = allowed
		}
	case p.values != nil:
		var allowed []string
		for _, a := range p.values {
			if name, ok := a.(string); ok {
				allowed = append(allowed, name)
			}
		}
		p.Suggestion = suggest.Nearest(p.wrong, allowed)
	}
}

// allowedNames returns the names of properties that a schema knows, its $refs' and allOfs' included; sorted.
func allowedNames(n *node) []string {
	names, visited := map[string]bool{}, map[*node]bool{}
	queue := []*node{n}
	for len(queue) > 0 && len(visited) < 100 {
		n := queue[0]
		queue = queue[1:]
		if n == nil || visited[n] {
			continue
		}
		visited[n] = true
		for name := range n.properties {
			names[name] = true
		}
		for _, v := range n.enum { // of propertyNames
			if s, ok := v.(string); ok {
				names[s] = true
			}
		}
		queue = append(append(queue, n.refs...), n.allOf...)
	}
	out := make([]string, 0, len(names))
	for name := range names {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// explain reports why a value fails every alternative: with the problems of the alternative that fits best, or with a
// single problem when there is no such.
func (e *evaluator) explain(keyword string, alternatives []*node, v any) {
	start := len(e.problems)
	best, bestScore, tie := []problem(nil), -1, false
	for _, alt := range alternatives {
		e.eval(alt, v, true)
		found := slices.Clone(e.problems[start:])
		e.problems = e.problems[:start]
		if len(found) == 0 {
			continue
		}
		score := e.score(found)
		switch {
		case score > bestScore:
			best, bestScore, tie = found, score, false
		case score == bestScore:
			tie = true
		}
	}
	if best != nil && bestScore > 0 && !tie {
		e.problems = append(e.problems, best...)
		return
	}
	what := "fits none of the alternatives"
	if kinds := alternativeTypes(alternatives); kinds != "" && wrongType(best, e.path) {
		what = "got " + typeOf(v).String() + ", want " + kinds
		keyword = "type"
	}
	e.report(true, keyword, what)
}

// score rates how well a value fits an alternative: the deeper its first problem, the better. An alternative for
// another type has the score 0.
func (e *evaluator) score(found []problem) int {
	if wrongType(found, e.path) {
		return 0
	}
	shallowest := 1 << 20
	for _, p := range found {
		depth := len(p.Path) - len(e.path)
		if p.Keyword == "enum" || p.Keyword == "const" {
			depth-- // usually the field that distinguishes the alternatives
		}
		shallowest = min(shallowest, depth)
	}
	return 1 + max(0, shallowest+1)*1000 + max(0, 999-len(found))
}

// wrongType reports whether one of the problems is that the value itself has another type.
func wrongType(found []problem, path validators.Path) bool {
	return slices.ContainsFunc(found, func(p problem) bool { return p.Keyword == "type" && len(p.Path) == len(path) })
}

// alternativeTypes returns the types that the alternatives accept; "" when one of them names none.
func alternativeTypes(alternatives []*node) string {
	var all types
	for _, n := range alternatives {
		for len(n.refs) == 1 && n.types == 0 && len(n.refs[0].refs) == 0 {
			n = n.refs[0]
		}
		if n.types == 0 {
			return ""
		}
		all |= n.types
	}
	return all.String()
}

func quote(name string) string {
	// %q would double every backslash of a pattern; escape only what would end the quotes or the line.
	return "'" + quoter.Replace(shorten(name)) + "'"
}

var quoter = strings.NewReplacer("'", `\'`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\x00", `\x00`)

func shorten(s string) string {
	if len(s) <= maxListedBytes {
		return s
	}
	return strings.ToValidUTF8(s[:maxListedBytes], "") + "..."
}

func number(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	f, _ := r.Float64()
	return fmt.Sprint(f)
}

func literal(v any) string {
	if s, ok := v.(string); ok {
		return quote(s)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return shorten(string(b))
}

func constMessage(want any) string { return "value must be " + literal(want) }

func enumMessage(allowed []any) string {
	if len(allowed) == 1 {
		return constMessage(allowed[0])
	}
	var b strings.Builder
	b.WriteString("value must be one of ")
	for i, v := range allowed {
		if i == maxListed || b.Len() > maxListedBytes {
			fmt.Fprintf(&b, " and %d more", len(allowed)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(literal(v))
	}
	return b.String()
}

// Knower reports which fields a schema knows, with the limits of one evaluation for all calls together.
type Knower struct {
	// LoadedOnly means that a reference to a schema that is not loaded defines nothing; otherwise it may define any field.
	LoadedOnly bool

	e evaluator
}

// NewKnower returns a Knower whose calls end with the context.
func NewKnower(ctx context.Context) *Knower { return &Knower{e: evaluator{ctx: ctx}} }

// Knows reports whether the schema defines the field at a path, or rejects it. Past the limits it may do so.
func (k *Knower) Knows(s *Schema, path validators.Path) bool {
	level := expand([]*node{s.root})
	for _, step := range path {
		var next []*node
		for _, n := range level {
			if !k.e.spend(1) {
				return true
			}
			if step.IsIndex() {
				return true // the items of lists have no names
			}
			if p, ok := n.properties[step.Key]; ok {
				next = append(next, p)
				continue
			}
			matched := false
			for _, p := range n.patterns {
				if k.e.match(p.re, step.Key) != invalid {
					next, matched = append(next, p.node), true
				}
			}
			switch {
			case matched:
			case n.additionalFalse, n.permissive != "" && !k.LoadedOnly, n.unevaluatedProperties != nil:
				return true
			case n.additional != nil && !n.additional.always:
				next = append(next, n.additional)
			}
		}
		if len(next) == 0 {
			return false
		}
		level = expand(next)
	}
	return true
}

// expand adds the schemas that apply to the same value.
func expand(nodes []*node) []*node {
	visited := map[*node]bool{}
	var out []*node
	for len(nodes) > 0 && len(out) < 1000 {
		n := nodes[0]
		nodes = nodes[1:]
		if n == nil || visited[n] {
			continue
		}
		visited[n] = true
		out = append(out, n)
		nodes = append(nodes, n.refs...)
		nodes = append(nodes, n.allOf...)
		nodes = append(nodes, n.anyOf...)
		nodes = append(nodes, n.oneOf...)
		nodes = append(nodes, n.then, n.other)
		for _, d := range n.dependencies {
			nodes = append(nodes, d.node)
		}
	}
	return out
}
