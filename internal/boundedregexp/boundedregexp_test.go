package boundedregexp_test

import (
	"context"
	"errors"
	"regexp"
	"regexp/syntax"
	"runtime"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/boundedregexp"
)

// hostile are short patterns that package regexp compiles to hundreds of megabytes.
var hostile = map[string]string{
	"a repeated literal":            "(?:" + strings.Repeat("ab", 1500) + "){1000}",
	"nested repetitions":            "((a{10}){10}){10}" + strings.Repeat("(?:(?:[a-z]{10}){10}){10}", 20),
	"an open repetition":            "(?:" + strings.Repeat("ab", 600) + "){1000,}",
	"an optional repetition":        "(?:x{0,30}){0,33}" + strings.Repeat("(?:x{0,30}){0,33}", 10),
	"many classes":                  strings.Repeat(`\pL`, 5000),
	"many negated classes":          strings.Repeat(`[^\PL]`, 2000),
	"a long literal":                strings.Repeat("a", 1<<20),
	"a case-insensitive repetition": "(?i)(?:" + strings.Repeat("ab", 1500) + "){900}",
}

func TestCompile_TooComplex(t *testing.T) {
	for name, pattern := range hostile {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			re, err := boundedregexp.Compile(pattern)
			runtime.ReadMemStats(&after)
			if re != nil || !errors.Is(err, boundedregexp.ErrTooComplex) {
				t.Errorf("Compile() = %v, %v, want ErrTooComplex", re, err)
			}
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 4<<20 {
				t.Errorf("Compile() allocated %d MiB, want at most 4", allocated>>20)
			}
		})
	}
}

func TestCompile_Invalid(t *testing.T) {
	for _, pattern := range []string{"(", "a{2,1}", `\Q\E\p{Nonsense}`, "(?<=a)b", "a{1001}", strings.Repeat("(", 2000) + strings.Repeat(")", 2000)} {
		if _, err := boundedregexp.Compile(pattern); err == nil || errors.Is(err, boundedregexp.ErrTooComplex) {
			t.Errorf("Compile(%.40q) = %v, want another error than ErrTooComplex", pattern, err)
		}
	}
}

// ordinary are patterns as charts, Flux sources and policies have them.
var ordinary = []string{
	"", "^a", `^\d+(\.\d+)?(Ki|Mi|Gi)?$`, "^(?:Cluster|Pool.*)$", `.*-rc\..*`, "^.{0,253}$", "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?",
	`^(?P<team>[^/]+)/apps$`, `(?i)^(true|false)$`, `^[\p{L}\p{N}_]{1,63}$`, "(?:a|b|)*c+?", "(a{2,3}){0,4}", "x{3,}", "(|a)+$", `\bfoo\b`,
	`^(\*|([0-5]?\d)(-[0-5]?\d)?)(/\d+)?(,(\*|([0-5]?\d)(-[0-5]?\d)?)(/\d+)?)*$`,
}

// TestMeasure_AtLeastProgram: the measured size is never less than the size that is compiled, and not far above it.
func TestMeasure_AtLeastProgram(t *testing.T) {
	for _, pattern := range ordinary {
		size, err := boundedregexp.Measure(pattern)
		if err != nil {
			t.Fatalf("Measure(%q) = %v", pattern, err)
		}
		if compiled := program(t, pattern); size.States < compiled || size.States > 2*compiled+2 {
			t.Errorf("Measure(%q) = %d, want at least the %d instructions of the program, and at most twice as many", pattern, size.States, compiled)
		}
	}
}

func program(t testing.TB, pattern string) int {
	t.Helper()
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		t.Fatal(err)
	}
	return len(prog.Inst)
}

func TestRegexp_MatchEqualsRegexp(t *testing.T) {
	texts := []string{"", "a", "aab", "Cluster", "1.5Gi", "team/apps", "x-rc.1", "TRUE", "foo bar", "\xff\xfea", "é_1", "5,10-20/2"}
	for _, text := range texts[1:] {
		texts = append(texts, strings.Repeat(text, 20_000)) // checks the context while it matches
	}
	for _, pattern := range ordinary {
		re, err := boundedregexp.Compile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		std := regexp.MustCompile(pattern)
		for _, text := range texts {
			got, err := re.Match(t.Context(), text)
			if errors.Is(err, boundedregexp.ErrTooComplex) && re.Work(text) > boundedregexp.MaxWork {
				continue
			}
			if want := std.MatchString(text); err != nil || got != want {
				t.Errorf("%q: Match(%.20q, %d bytes) = %t, %v, want %t", pattern, text, len(text), got, err, want)
			}
		}
	}
}

func TestRegexp_MatchTooLong(t *testing.T) {
	re, err := boundedregexp.Compile("^(?:a?){900}(?:a){900}$")
	if err != nil {
		t.Fatal(err)
	}
	matched, err := re.Match(t.Context(), strings.Repeat("a", 1<<20))
	if matched || !errors.Is(err, boundedregexp.ErrTooComplex) {
		t.Errorf("Match() = %t, %v, want ErrTooComplex", matched, err)
	}
}

// TestRegexp_MatchCancelled: a match that takes long ends with its context. The context is done from the start, so that
// the test does not depend on time.
func TestRegexp_MatchCancelled(t *testing.T) {
	re, err := boundedregexp.Compile("^(?:a?){900}(?:a){900}$")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	text := strings.Repeat("a", 5_000)
	if matched, err := re.Match(ctx, text); matched || !errors.Is(err, context.Canceled) {
		t.Errorf("Match() = %t, %v, want the context's error", matched, err)
	}
	if got, err := re.Submatches(ctx, text); got != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("Submatches() = %v, %v, want the context's error", got, err)
	}
}

func TestRegexp_Submatches(t *testing.T) {
	re, err := boundedregexp.Compile(`^(?P<team>[^/]+)/apps$`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := re.Submatches(t.Context(), "blue/apps")
	if err != nil || len(got) != 2 || got[1] != "blue" || re.Groups()[1] != "team" {
		t.Errorf("Submatches() = %v, %v", got, err)
	}
	if got, err := re.Submatches(t.Context(), "blue"); got != nil || err != nil {
		t.Errorf("Submatches() = %v, %v, want none", got, err)
	}
	many, err := boundedregexp.Compile(strings.Repeat("(a)", 100))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := many.Submatches(t.Context(), "a"); !errors.Is(err, boundedregexp.ErrTooComplex) {
		t.Errorf("Submatches() with 100 groups = %v, want ErrTooComplex", err)
	}
}

func FuzzMeasure(f *testing.F) {
	for _, p := range ordinary {
		f.Add(p)
	}
	f.Add("(?:a{10}){10,}|(?:|b){3,7}")
	f.Fuzz(func(t *testing.T, pattern string) {
		size, err := boundedregexp.Measure(pattern)
		_, std := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			if std == nil && !errors.Is(err, boundedregexp.ErrTooComplex) {
				t.Errorf("Measure(%q) = %v, which package regexp compiles", pattern, err)
			}
			return
		}
		if compiled := program(t, pattern); size.States < compiled {
			t.Errorf("Measure(%q) = %d, less than the %d instructions of the program", pattern, size.States, compiled)
		}
	})
}
