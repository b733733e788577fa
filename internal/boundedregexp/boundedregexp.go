// Package boundedregexp compiles and matches regular expressions that come from outside: the schemas of charts, patches,
// sources and policies. The syntax and the result are those of package regexp (RE2), which ends in linear time but lets
// a pattern of 3 kB take 400 MiB, and the match of a text of 10 kB take 13 seconds that nothing can interrupt.
//
// A pattern is measured before it is compiled, and a match is measured before it starts. What is over a limit is an
// error that wraps ErrTooComplex: it reports that the result is unknown, never that a text does or does not match.
package boundedregexp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// The limits of a pattern. Patterns of public chart schemas have up to 900 bytes and 800 states.
const (
	// MaxLength bounds the pattern, in bytes.
	MaxLength = 16 << 10
	// MaxStates bounds the compiled program, in instructions.
	MaxStates = 10_000
	// maxRunes bounds the character classes of the pattern, in runes of their ranges. Classes are shared by the copies
	// that a repetition makes.
	maxRunes = 100_000
	// maxUnicodeClasses bounds the classes such as \pL before the pattern is parsed: each has up to 1,400 runes.
	maxUnicodeClasses = 64
	// maxGroups bounds the groups of a pattern whose submatches are searched: every state keeps the positions of all.
	maxGroups = 64
)

// The limits of a match, in states times bytes. A unit takes about 20 ns in the worst case.
const (
	// MaxWork bounds one match.
	MaxWork = 32 << 20
	// interruptible is the work from which a match checks its context; below it takes less than a millisecond.
	interruptible = 64 << 10
)

// The memory of a compiled expression, in bytes: the instruction of a state with its place in a pooled matcher, and a
// rune in each of the copies that compiling makes.
const (
	stateBytes = 128
	runeBytes  = 12
)

// ErrTooComplex is the error of a pattern or of a match that exceeds the limits.
var ErrTooComplex = errors.New("too complex")

// Regexp is a compiled regular expression. It is immutable and safe for concurrent use.
type Regexp struct {
	re   *regexp.Regexp
	size Size
}

// Size is the size of a compiled pattern.
type Size struct {
	// States is the number of instructions, at most.
	States int
	// Runes is the number of runes in the ranges of character classes and in literals.
	Runes int
}

// Memory estimates the memory of a pattern of this size, in bytes.
func (s Size) Memory() int64 { return int64(s.States)*stateBytes + int64(s.Runes)*runeBytes }

// Compile measures and compiles a pattern. The error wraps ErrTooComplex for a pattern that exceeds the limits, and is
// that of package regexp otherwise.
func Compile(pattern string) (*Regexp, error) {
	size, err := Measure(pattern)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	return &Regexp{re: re, size: size}, nil
}

// Wrap returns an expression that a library has compiled, of a pattern that Measure accepted before.
func Wrap(re *regexp.Regexp) (*Regexp, error) {
	size, err := Measure(re.String())
	if err != nil {
		return nil, err
	}
	return &Regexp{re: re, size: size}, nil
}

// Measure returns the size that a pattern compiles to, without compiling it. The errors are those of Compile.
func Measure(pattern string) (Size, error) {
	if len(pattern) > MaxLength {
		return Size{}, fmt.Errorf("the pattern has %d bytes, more than %d: %w", len(pattern), MaxLength, ErrTooComplex)
	}
	if n := strings.Count(pattern, `\p`) + strings.Count(pattern, `\P`); n > maxUnicodeClasses {
		return Size{}, fmt.Errorf("the pattern has %d Unicode classes, more than %d: %w", n, maxUnicodeClasses, ErrTooComplex)
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		if se, ok := errors.AsType[*syntax.Error](err); ok && (se.Code == syntax.ErrLarge || se.Code == syntax.ErrNestingDepth) {
			// Package regexp refuses it as well, and so do Helm and Flux.
			return Size{}, fmt.Errorf("the pattern cannot be compiled: %s", se.Code)
		}
		return Size{}, err
	}
	states, runes := count(parsed)
	states += 2 // the first and the last instruction
	switch {
	case states > MaxStates:
		return Size{}, fmt.Errorf("the pattern has more than %d states: %w", MaxStates, ErrTooComplex)
	case runes > maxRunes:
		return Size{}, fmt.Errorf("the pattern's character classes have more than %d ranges: %w", maxRunes/2, ErrTooComplex)
	}
	return Size{States: int(states), Runes: int(runes)}, nil
}

// count returns the instructions that an expression compiles to, at most, and the runes of its classes. The parser bounds
// both to millions, and the nesting to 1,000.
func count(re *syntax.Regexp) (states, runes int64) {
	for _, sub := range re.Sub {
		s, r := count(sub)
		states, runes = states+s, runes+r
	}
	switch re.Op {
	case syntax.OpLiteral:
		return int64(len(re.Rune)), int64(len(re.Rune))
	case syntax.OpCharClass:
		return 1, int64(len(re.Rune))
	case syntax.OpCapture, syntax.OpStar:
		return states + 2, runes
	case syntax.OpPlus, syntax.OpQuest:
		return states + 1, runes
	case syntax.OpRepeat:
		if re.Max < 0 {
			return int64(max(re.Min, 1))*states + 2, runes
		}
		return int64(re.Max)*states + int64(re.Max-re.Min) + 1, runes
	case syntax.OpAlternate:
		return states + int64(len(re.Sub)), runes
	case syntax.OpConcat:
		return states, runes
	default:
		return states + 1, runes
	}
}

// String returns the pattern.
func (r *Regexp) String() string { return r.re.String() }

// States returns the size of the compiled program.
func (r *Regexp) States() int { return r.size.States }

// Memory estimates the memory of the compiled expression, in bytes.
func (r *Regexp) Memory() int64 { return r.size.Memory() + int64(len(r.re.String())) }

// Work returns the work of matching a text: states times bytes.
func (r *Regexp) Work(text string) int64 { return int64(r.size.States) * int64(len(text)+1) }

// Match reports whether the text contains a match. The error wraps ErrTooComplex for more work than MaxWork, or is the
// context's: there is no result then.
func (r *Regexp) Match(ctx context.Context, text string) (bool, error) {
	work := r.Work(text)
	switch {
	case work > MaxWork:
		return false, r.tooLong(text)
	case work <= interruptible:
		return r.re.MatchString(text), nil
	}
	in := &reader{ctx: ctx, text: text, interval: max(1, interruptible/r.size.States)}
	matched := r.re.MatchReader(in)
	if in.err != nil {
		return false, in.err
	}
	return matched, nil
}

// Submatches returns the text of the leftmost match and of its groups, as regexp.FindStringSubmatch does; nil when there
// is none. The error is that of Match, or wraps ErrTooComplex for an expression with many groups.
func (r *Regexp) Submatches(ctx context.Context, text string) ([]string, error) {
	if r.re.NumSubexp() > maxGroups {
		return nil, fmt.Errorf("the pattern has %d groups, more than %d: %w", r.re.NumSubexp(), maxGroups, ErrTooComplex)
	}
	// Whether there is a match can be interrupted. Where it is cannot.
	if ok, err := r.Match(ctx, text); !ok {
		return nil, err
	}
	return r.re.FindStringSubmatch(text), nil
}

// Groups returns the names of the groups, as regexp.SubexpNames does.
func (r *Regexp) Groups() []string { return r.re.SubexpNames() }

func (r *Regexp) tooLong(text string) error {
	return fmt.Errorf("matching a text of %d bytes against a pattern of %d states: %w", len(text), r.size.States, ErrTooComplex)
}

// reader reads a text, and ends when its context does.
type reader struct {
	ctx      context.Context
	text     string
	interval int // in runes
	read     int
	err      error
}

// ReadRune implements io.RuneReader.
func (r *reader) ReadRune() (rune, int, error) {
	if r.read++; r.read%r.interval == 0 {
		if r.err = r.ctx.Err(); r.err != nil {
			return 0, 0, r.err
		}
	}
	if r.text == "" {
		return 0, 0, io.EOF
	}
	c, n := utf8.DecodeRuneInString(r.text)
	r.text = r.text[n:]
	return c, n, nil
}
