package schema

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"sort"
	"strconv"
	"unicode/utf8"

	"github.com/flux-admission/flux-admission/internal/boundedregexp"
	"github.com/flux-admission/flux-admission/validators"
)

// The limits of one evaluation. A schema may be built so that its cost doubles with every level of the values.
const (
	maxSteps    = 2_000_000
	maxNesting  = 2_000
	maxProblems = 10_000
	// checkInterval is how many steps pass between two checks of the context.
	checkInterval = 4_096

	// MaxProblems is how many problems a result has.
	MaxProblems = 200
	// maxSuggested is for how many of them a suggestion is searched.
	maxSuggested = 50
)

// Problem is one error in values.
type Problem struct {
	// Path is the offending field; for a missing one, the field that should be there.
	Path validators.Path
	// Pointer is the position as Helm prints it: a JSON Pointer to the value that the keyword applies to.
	Pointer string
	// Keyword is the JSON Schema keyword that failed.
	Keyword string
	// Message describes the violation, without the position. It quotes names and what the schema allows, never a value.
	Message string
	// Suggestion is the most similar name that the schema allows in place of a wrong one; empty when there is none.
	Suggestion string
	// Allowed are the names that the schema allows in place of a wrong one, when they are few; sorted.
	Allowed []string
}

// Result is the result of an evaluation.
type Result struct {
	// Problems are those that remain whatever the unknown values are, in the order of their paths: the first MaxProblems.
	Problems []Problem
	// More is how many problems there are beside these.
	More int
	// Steps is the work that the evaluation took.
	Steps int
	// NotLoaded are the URLs of the schemas that apply to the values and are not loaded.
	NotLoaded []string
	// TooComplex is set when a regular expression applies to the values that is too complex, or too complex for them.
	TooComplex bool
}

// ErrBudget is the error of an evaluation that exceeds the limits.
var ErrBudget = errors.New("validating the values against the schema takes too many steps")

var errCycle = errors.New("the schema refers to itself without end")

// Evaluate validates values against the schema. Maps may be Open and values Unknown, anywhere. The values are not
// changed. An error means that there is no result.
func (s *Schema) Evaluate(ctx context.Context, values any) (Result, error) {
	e := evaluator{ctx: ctx}
	e.eval(s.root, values, true)
	if e.err != nil {
		return Result{}, e.err
	}
	sort.SliceStable(e.problems, func(i, j int) bool {
		a, b := &e.problems[i], &e.problems[j]
		if a.sortKey != b.sortKey {
			return a.sortKey < b.sortKey
		}
		return a.Message < b.Message
	})
	res := Result{Steps: e.steps, TooComplex: e.tooComplex}
	names := map[*node][]string{}
	for i, p := range e.problems {
		if i > 0 && p.sortKey == e.problems[i-1].sortKey && p.Message == e.problems[i-1].Message {
			continue // two schemas report the same problem
		}
		if len(res.Problems) >= MaxProblems {
			res.More++
			continue
		}
		if len(res.Problems) < maxSuggested && e.ctx.Err() == nil {
			e.suggest(&p, names)
		}
		res.Problems = append(res.Problems, p.Problem)
	}
	slices.Sort(e.notLoaded)
	res.NotLoaded = slices.Compact(e.notLoaded)
	return res, nil
}

type problem struct {
	Problem
	sortKey string
	// wrong is a name or value in place of which the schema allows others: those of names or values.
	wrong  string
	names  *node
	values []any
}

type evaluator struct {
	ctx       context.Context
	steps     int
	nesting   int
	path      validators.Path // of the current value; reused
	problems  []problem
	notLoaded []string
	// tooComplex means that the result of a regular expression is unknown.
	tooComplex bool
	err        error
}

func (e *evaluator) fail(err error) state {
	if e.err == nil {
		e.err = err
	}
	return maybe
}

// spend takes steps from the budget and reports whether any are left.
func (e *evaluator) spend(n int) bool {
	before := e.steps
	e.steps += n
	if e.err != nil {
		return false
	}
	if e.steps > maxSteps {
		e.fail(ErrBudget)
		return false
	}
	if before/checkInterval != e.steps/checkInterval {
		if err := e.ctx.Err(); err != nil {
			e.fail(fmt.Errorf("%w: %w", ErrBudget, err))
			return false
		}
	}
	return true
}

// workPerStep is the work of a match, in states times bytes, that costs as much as a step.
const workPerStep = 16

// match evaluates a regular expression, nil for one that is too complex: valid when it matches the text, maybe when that
// is unknown.
func (e *evaluator) match(re *boundedregexp.Regexp, text string) state {
	if re == nil {
		e.tooComplex = true
		return maybe
	}
	// A match of more than the limit of all steps is not tried.
	if !e.spend(1 + int(min(re.Work(text), boundedregexp.MaxWork)/workPerStep)) {
		return maybe
	}
	matched, err := re.Match(e.ctx, text)
	switch {
	case errors.Is(err, boundedregexp.ErrTooComplex):
		e.tooComplex = true
		return maybe
	case err != nil:
		return e.fail(fmt.Errorf("%w: %w", ErrBudget, err))
	}
	return boolState(matched)
}

// isRegexp evaluates whether a text is a regular expression.
func (e *evaluator) isRegexp(text string) state {
	if !e.spend(1 + len(text)) {
		return maybe
	}
	_, err := boundedregexp.Measure(text)
	if errors.Is(err, boundedregexp.ErrTooComplex) {
		e.tooComplex = true
		return maybe
	}
	return boolState(err == nil)
}

// child evaluates the value at a step below the current one.
func (e *evaluator) child(n *node, step validators.Step, v any, report bool) state {
	e.path = append(e.path, step)
	s := e.eval(n, v, report)
	e.path = e.path[:len(e.path)-1]
	return s
}

func key(name string) validators.Step { return validators.Step{Key: name, Index: -1} }
func index(i int) validators.Step     { return validators.Step{Index: i} }

// eval evaluates a value. With report, it adds what makes the value invalid to the problems, the deepest cause first.
func (e *evaluator) eval(n *node, v any, report bool) state {
	if n.always {
		return valid
	}
	if !e.spend(1) {
		return maybe
	}
	if n.permissive != "" {
		e.notLoaded = append(e.notLoaded, n.permissive)
		return maybe
	}
	u, unknown := v.(Unknown)
	if n.never {
		if unknown && u.MayVanish {
			return maybe
		}
		e.report(report, "not", "nothing is allowed here")
		return invalid
	}
	if unknown {
		return maybe
	}
	if e.nesting++; e.nesting > maxNesting {
		e.nesting--
		return e.fail(errCycle)
	}
	defer func() { e.nesting-- }()

	t := typeOf(v)
	if t == 0 {
		return e.fail(fmt.Errorf("the values contain a %T, which JSON does not have", v))
	}
	if n.types != 0 && n.types&t == 0 && !(t == typeNumber && n.types&typeInteger != 0 && isInteger(v)) {
		e.report(report, "type", "got "+t.String()+", want "+n.types.String())
		return invalid
	}
	st := e.evalConstants(n, v, t, report)
	if st == invalid && !report {
		return invalid
	}
	for _, ref := range n.refs {
		st = and(st, e.eval(ref, v, report))
	}
	switch {
	case t == typeObject && n.hasObject:
		m, open := object(v)
		st = and(st, e.evalObject(n, m, open, report))
	case t == typeArray && n.hasArray:
		st = and(st, e.evalArray(n, v.([]any), report))
	case t == typeString && n.hasString:
		st = and(st, e.evalString(n, v.(string), report))
	case (t == typeNumber || t == typeInteger) && n.hasNumber:
		st = and(st, e.evalNumber(n, v, report))
	}
	if st == invalid && !report {
		return invalid
	}
	return and(st, e.evalCombined(n, v, report))
}

func (e *evaluator) evalConstants(n *node, v any, t types, report bool) state {
	st := valid
	if n.constant != nil {
		s := e.equal(v, *n.constant)
		if s == invalid {
			e.report(report, "const", constMessage(*n.constant))
		}
		st = and(st, s)
	}
	if n.enum != nil {
		s := invalid
		for _, item := range n.enum {
			if !e.spend(1) {
				return maybe
			}
			if s = min(s, e.equal(v, item)); s == valid {
				break
			}
		}
		if s == invalid {
			e.reportSuggesting(report, "enum", enumMessage(n.enum), v, n.enum)
		}
		st = and(st, s)
	}
	if n.formatTest != nil && t == typeString && !n.formatTest(v) {
		e.report(report, "format", "is not a valid "+n.format)
		return invalid
	}
	if text, ok := v.(string); ok && n.regexpFormat {
		s := e.isRegexp(text)
		if s == invalid {
			e.report(report, "format", "is not a valid "+n.format)
		}
		st = and(st, s)
	}
	return st
}

func (e *evaluator) evalObject(n *node, m map[string]any, open, report bool) state {
	st := valid
	if open {
		st = maybe
	}
	sure, possible := len(m), len(m)
	for _, v := range m {
		if u, ok := v.(Unknown); ok && u.MayVanish {
			sure--
		}
	}
	if open {
		possible = math.MaxInt
	}
	st = and(st, e.bounds(n.minProperties, n.maxProperties, sure, possible, report, "Properties", "properties"))
	for _, name := range n.required {
		st = and(st, e.present(m, open, name, func() {
			e.missing(report, "required", "missing property "+quote(name), name)
		}))
	}
	for _, d := range n.dependencies {
		v, ok := m[d.name]
		if !ok {
			continue // when open, the key may be set: st is maybe already
		}
		u, unknown := v.(Unknown)
		uncertain := unknown && u.MayVanish
		if d.node != nil {
			s := e.eval2(d.node, m, open, report && !uncertain)
			if uncertain && s == invalid {
				s = maybe
			}
			st = and(st, s)
			continue
		}
		for _, name := range d.required {
			s := e.present(m, open, name, func() {
				message := "missing property " + quote(name) + ", required because " + quote(d.name) + " is set"
				e.missing(report && !uncertain, "dependentRequired", message, name)
			})
			if uncertain && s == invalid {
				s = maybe
			}
			st = and(st, s)
		}
	}
	for name, v := range m {
		if st == invalid && !report || e.err != nil {
			break
		}
		st = and(st, e.evalProperty(n, name, v, report))
	}
	if n.propertyNames != nil {
		st = and(st, e.evalPropertyNames(n, m, report))
	}
	return st
}

// eval2 evaluates an object again that was taken apart.
func (e *evaluator) eval2(n *node, m map[string]any, open, report bool) state {
	if open {
		return e.eval(n, Open(m), report)
	}
	return e.eval(n, m, report)
}

func (e *evaluator) present(m map[string]any, open bool, name string, report func()) state {
	v, ok := m[name]
	switch {
	case ok:
		if u, unknown := v.(Unknown); unknown && u.MayVanish {
			return maybe
		}
		return valid
	case open:
		return maybe
	default:
		report()
		return invalid
	}
}

func (e *evaluator) evalProperty(n *node, name string, v any, report bool) state {
	st, evaluated := valid, invalid
	if p, ok := n.properties[name]; ok {
		evaluated = valid
		st = e.child(p, key(name), v, report)
	}
	for _, p := range n.patterns {
		switch e.match(p.re, name) {
		case valid:
			evaluated = valid
			st = and(st, e.child(p.node, key(name), v, report))
		case maybe:
			evaluated = min(evaluated, maybe)
			st = and(st, maybe)
		case invalid:
		}
	}
	switch {
	case evaluated != invalid:
	case n.additionalFalse:
		if u, ok := v.(Unknown); ok && u.MayVanish {
			return maybe
		}
		e.unknownName(report, n, "additionalProperties", "additional property "+quote(name)+" not allowed", name)
		return invalid
	case n.additional != nil:
		st = e.child(n.additional, key(name), v, report)
	}
	return st
}

func (e *evaluator) evalPropertyNames(n *node, m map[string]any, report bool) state {
	st := valid
	for name, v := range m {
		s := e.eval(n.propertyNames, name, false)
		if u, ok := v.(Unknown); ok && u.MayVanish && s == invalid {
			s = maybe
		}
		if s == invalid {
			e.unknownName(report, n.propertyNames, "propertyNames", "invalid property name "+quote(name), name)
		}
		st = and(st, s)
	}
	return st
}

// bounds compares a count, known to be between sure and possible, with a minimum and a maximum.
func (e *evaluator) bounds(least, most, sure, possible int, report bool, suffix, what string) state {
	st := valid
	if least >= 0 && sure < least {
		st = maybe
		if possible < least {
			e.report(report, "min"+suffix, "at least "+strconv.Itoa(least)+" "+what+" are required")
			return invalid
		}
	}
	if most >= 0 && possible > most {
		st = maybe
		if sure > most {
			e.report(report, "max"+suffix, "at most "+strconv.Itoa(most)+" "+what+" are allowed")
			return invalid
		}
	}
	return st
}

func (e *evaluator) evalArray(n *node, list []any, report bool) state {
	st := e.bounds(n.minItems, n.maxItems, len(list), len(list), report, "Items", "items")
	if n.uniqueItems {
		st = and(st, e.evalUnique(list, report))
	}
	if n.additionalItemsFalse && len(list) > len(n.prefix) {
		e.report(report, "additionalItems", "at most "+strconv.Itoa(len(n.prefix))+" items are allowed")
		st = invalid
	}
	for i, v := range list {
		if st == invalid && !report || e.err != nil {
			return st
		}
		switch {
		case i < len(n.prefix):
			st = and(st, e.child(n.prefix[i], index(i), v, report))
		case n.items != nil:
			st = and(st, e.child(n.items, index(i), v, report))
		}
	}
	if n.contains == nil {
		return st
	}
	sure, possible := 0, 0
	for i, v := range list {
		switch e.child(n.contains, index(i), v, false) {
		case valid:
			sure++
			possible++
		case maybe:
			possible++
		case invalid:
		}
	}
	return and(st, e.bounds(n.minContains, n.maxContains, sure, possible, report, "Contains", "items that match 'contains'"))
}

func (e *evaluator) evalUnique(list []any, report bool) state {
	st := valid
	for i := 1; i < len(list); i++ {
		for j := range i {
			if !e.spend(1) {
				return maybe
			}
			switch e.equal(list[i], list[j]) {
			case valid:
				e.report(report, "uniqueItems", "items at "+strconv.Itoa(j)+" and "+strconv.Itoa(i)+" are equal")
				return invalid
			case maybe:
				st = maybe
			case invalid:
			}
		}
	}
	return st
}

func (e *evaluator) evalString(n *node, v string, report bool) state {
	st := valid
	if n.minLength >= 0 || n.maxLength >= 0 {
		length := utf8.RuneCountInString(v)
		if n.minLength >= 0 && length < n.minLength {
			e.report(report, "minLength", "must have at least "+strconv.Itoa(n.minLength)+" characters")
			st = invalid
		}
		if n.maxLength >= 0 && length > n.maxLength {
			e.report(report, "maxLength", "must have at most "+strconv.Itoa(n.maxLength)+" characters")
			st = invalid
		}
	}
	if n.pattern != nil || n.complexPattern {
		s := e.match(n.pattern, v)
		if s == invalid {
			e.report(report, "pattern", "does not match pattern "+quote(n.pattern.String()))
		}
		st = and(st, s)
	}
	return st
}

func (e *evaluator) evalNumber(n *node, v any, report bool) state {
	num := rat(v)
	if num == nil {
		return e.fail(errors.New("the values contain a number that JSON does not have"))
	}
	st := valid
	test := func(bad bool, keyword, message string, limit *big.Rat) {
		if bad {
			e.report(report, keyword, message+" "+number(limit))
			st = invalid
		}
	}
	test(n.minimum != nil && num.Cmp(n.minimum) < 0, "minimum", "must be at least", n.minimum)
	test(n.maximum != nil && num.Cmp(n.maximum) > 0, "maximum", "must be at most", n.maximum)
	test(n.exclusiveMinimum != nil && num.Cmp(n.exclusiveMinimum) <= 0, "exclusiveMinimum", "must be more than", n.exclusiveMinimum)
	test(n.exclusiveMaximum != nil && num.Cmp(n.exclusiveMaximum) >= 0, "exclusiveMaximum", "must be less than", n.exclusiveMaximum)
	if n.multipleOf != nil && n.multipleOf.Sign() != 0 {
		test(!new(big.Rat).Quo(num, n.multipleOf).IsInt(), "multipleOf", "must be a multiple of", n.multipleOf)
	}
	return st
}

// evalCombined evaluates the keywords that apply other schemas to the same value.
func (e *evaluator) evalCombined(n *node, v any, report bool) state {
	st := valid
	if n.not != nil {
		s := negate(e.eval(n.not, v, false))
		if s == invalid {
			e.report(report, "not", "matches what the schema excludes with 'not'")
		}
		st = and(st, s)
	}
	for _, sub := range n.allOf {
		st = and(st, e.eval(sub, v, report))
		if st == invalid && !report {
			return st
		}
	}
	if len(n.anyOf) > 0 {
		st = and(st, e.evalAnyOf(n, v, report))
	}
	if len(n.oneOf) > 0 {
		st = and(st, e.evalOneOf(n, v, report))
	}
	if n.when != nil {
		st = and(st, e.evalIf(n, v, report))
	}
	if n.unevaluatedProperties != nil || n.unevaluatedItems != nil {
		st = and(st, e.evalUnevaluated(n, v, report))
	}
	return st
}

func (e *evaluator) evalAnyOf(n *node, v any, report bool) state {
	st := invalid
	for _, sub := range n.anyOf {
		if st = min(st, e.eval(sub, v, false)); st == valid {
			return valid
		}
	}
	if st == invalid && report {
		e.explain("anyOf", n.anyOf, v)
	}
	return st
}

func (e *evaluator) evalOneOf(n *node, v any, report bool) state {
	sure, possible := 0, 0
	for _, sub := range n.oneOf {
		switch e.eval(sub, v, false) {
		case valid:
			sure++
			possible++
		case maybe:
			possible++
		case invalid:
		}
	}
	switch {
	case possible == 0:
		if report {
			e.explain("oneOf", n.oneOf, v)
		}
		return invalid
	case sure > 1:
		e.report(report, "oneOf", "matches more than one of the alternatives, where exactly one must match")
		return invalid
	case sure == 1 && possible == 1:
		return valid
	default:
		return maybe
	}
}

func (e *evaluator) evalIf(n *node, v any, report bool) state {
	branch := func(b *node, report bool) state {
		if b == nil {
			return valid
		}
		return e.eval(b, v, report)
	}
	switch e.eval(n.when, v, false) {
	case valid:
		return branch(n.then, report)
	case invalid:
		return branch(n.other, report)
	case maybe:
	}
	a, b := branch(n.then, false), branch(n.other, false)
	if a != b {
		return maybe
	}
	if a == invalid {
		// Both branches fail, but it is unknown which problems remain.
		e.report(report, "if", "fails both 'then' and 'else'")
	}
	return a
}

// evalUnevaluated applies unevaluatedProperties and unevaluatedItems to what no other keyword evaluates.
func (e *evaluator) evalUnevaluated(n *node, v any, report bool) state {
	st := valid
	if m, open := object(v); m != nil && n.unevaluatedProperties != nil {
		seen := evaluated{names: map[string]state{}}
		e.collectEvaluated(n, v, &seen, valid, true)
		if open {
			st = maybe
		}
		for name, pv := range m {
			known, ok := seen.names[name]
			if ok && known == valid {
				continue
			}
			s := e.child(n.unevaluatedProperties, key(name), pv, false)
			if s == invalid {
				u, unknown := pv.(Unknown)
				if ok || unknown && u.MayVanish {
					s = maybe
				} else if n.unevaluatedProperties.never {
					e.unknownName(report, n, "unevaluatedProperties", "additional property "+quote(name)+" not allowed", name)
				} else {
					e.child(n.unevaluatedProperties, key(name), pv, report)
				}
			}
			st = and(st, s)
		}
	}
	if list, ok := v.([]any); ok && n.unevaluatedItems != nil {
		seen := evaluated{items: map[int]state{}}
		e.collectEvaluated(n, v, &seen, valid, true)
		for i, iv := range list {
			known, ok := seen.items[i]
			if ok && known == valid {
				continue
			}
			s := e.child(n.unevaluatedItems, index(i), iv, report && !ok)
			if s == invalid && ok {
				s = maybe
			}
			st = and(st, s)
		}
	}
	return st
}

// evaluated is what keywords evaluate: certainly (valid) or possibly (maybe).
type evaluated struct {
	names map[string]state
	items map[int]state
}

func (s *evaluated) name(n string, st state) {
	if s.names != nil {
		if old, ok := s.names[n]; !ok || st < old {
			s.names[n] = st
		}
	}
}

func (s *evaluated) item(i int, st state) {
	if s.items != nil {
		if old, ok := s.items[i]; !ok || st < old {
			s.items[i] = st
		}
	}
}

// collectEvaluated collects what a schema, and the schemas that it applies to the same value, evaluate. Schemas that
// reject the value do not count.
func (e *evaluator) collectEvaluated(n *node, v any, seen *evaluated, sure state, top bool) {
	if n == nil || n.always || n.never || n.permissive != "" || !e.spend(1) {
		return
	}
	if e.nesting++; e.nesting > maxNesting {
		e.nesting--
		e.fail(errCycle)
		return
	}
	defer func() { e.nesting-- }()
	if m, _ := object(v); m != nil {
		for name := range m {
			s := invalid
			if _, ok := n.properties[name]; ok || n.additionalFalse || n.additionalTrue || n.additional != nil ||
				!top && n.unevaluatedProperties != nil {
				s = valid
			}
			for _, p := range n.patterns {
				if s != valid {
					s = min(s, e.match(p.re, name))
				}
			}
			if s != invalid {
				seen.name(name, max(s, sure))
			}
		}
	}
	if list, ok := v.([]any); ok {
		for i, item := range list {
			if i < len(n.prefix) || n.items != nil || n.additionalItemsFalse || n.additionalItemsTrue || !top && n.unevaluatedItems != nil {
				seen.item(i, sure)
			} else if n.contains != nil && n.containsEvaluates {
				if s := e.child(n.contains, index(i), item, false); s != invalid {
					seen.item(i, max(s, sure))
				}
			}
		}
	}
	follow := func(sub *node) {
		if sub == nil {
			return
		}
		if s := e.eval(sub, v, false); s != invalid {
			e.collectEvaluated(sub, v, seen, max(s, sure), false)
		}
	}
	for _, sub := range n.refs {
		follow(sub)
	}
	for _, list := range [][]*node{n.allOf, n.anyOf, n.oneOf} {
		for _, sub := range list {
			follow(sub)
		}
	}
	if m, _ := object(v); m != nil {
		for _, d := range n.dependencies {
			if _, ok := m[d.name]; ok && d.node != nil {
				follow(d.node)
			}
		}
	}
	if n.when != nil {
		s := e.eval(n.when, v, false)
		if s != invalid {
			e.collectEvaluated(n.when, v, seen, max(s, sure), false)
			follow(n.then)
		}
		if s != valid {
			follow(n.other)
		}
	}
}

// object returns a value's map, and whether it may have other keys; nil when the value is no object.
func object(v any) (map[string]any, bool) {
	switch v := v.(type) {
	case map[string]any:
		if v == nil {
			return map[string]any{}, false
		}
		return v, false
	case Open:
		return v, true
	}
	return nil, false
}

func typeOf(v any) types {
	switch v := v.(type) {
	case nil:
		return typeNull
	case bool:
		return typeBoolean
	case string:
		return typeString
	case []any:
		return typeArray
	case map[string]any, Open:
		return typeObject
	case int64, int, int32, uint64, uint32:
		return typeNumber
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return 0
		}
		return typeNumber
	case json.Number:
		return typeNumber
	}
	return 0
}

func isInteger(v any) bool {
	switch v := v.(type) {
	case float64:
		return v == math.Trunc(v)
	case json.Number:
		r := rat(v)
		return r != nil && r.IsInt()
	default:
		return true
	}
}

// rat returns a number as the decimal that it is written as; nil when it is too long.
func rat(v any) *big.Rat {
	switch v := v.(type) {
	case int64:
		return new(big.Rat).SetInt64(v)
	case json.Number:
		if len(v) > maxNumber || hugeExponent(string(v)) {
			return nil
		}
		r, _ := new(big.Rat).SetString(string(v))
		return r
	default:
		r, _ := new(big.Rat).SetString(fmt.Sprint(v))
		return r
	}
}

// equal compares two values: valid means that they are equal whatever their unknown parts are.
func (e *evaluator) equal(a, b any) state {
	if !e.spend(1) {
		return maybe
	}
	_, ua := a.(Unknown)
	_, ub := b.(Unknown)
	if ua || ub {
		return maybe
	}
	switch x := a.(type) {
	case nil:
		return boolState(b == nil)
	case bool:
		y, ok := b.(bool)
		return boolState(ok && x == y)
	case string:
		y, ok := b.(string)
		return boolState(ok && x == y)
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return invalid
		}
		st := valid
		for i := range x {
			if st = and(st, e.equal(x[i], y[i])); st == invalid {
				return invalid
			}
		}
		return st
	}
	if x, openX := object(a); x != nil {
		y, openY := object(b)
		if y == nil {
			return invalid
		}
		return and(e.subset(x, y, openY), e.subset(y, x, openX))
	}
	if typeOf(b) != typeNumber {
		return invalid
	}
	switch x := a.(type) {
	case int64:
		if y, ok := b.(int64); ok {
			return boolState(x == y)
		}
	case float64:
		if y, ok := b.(float64); ok {
			return boolState(x == y) // floats are equal if and only if their shortest decimals are
		}
	}
	x, y := rat(a), rat(b)
	return boolState(x != nil && y != nil && x.Cmp(y) == 0)
}

// subset reports whether y has every key of x with an equal value.
func (e *evaluator) subset(x, y map[string]any, openY bool) state {
	st := valid
	if openY {
		st = maybe
	}
	for k, v := range x {
		w, ok := y[k]
		u, unknown := v.(Unknown)
		switch {
		case ok:
			st = and(st, e.equal(v, w))
		case openY, unknown && u.MayVanish:
			st = and(st, maybe)
		default:
			return invalid
		}
	}
	return st
}

func boolState(ok bool) state {
	if ok {
		return valid
	}
	return invalid
}

// TypeName returns the JSON type of a value, as messages name it.
func TypeName(v any) string { return typeOf(v).String() }
