package soak_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// answer is how one attempt of a write ended.
type answer string

const (
	// right is the expected verdict.
	right answer = "right"
	// wrong is another one: an honest object that is denied, or one with a mistake that is stored unseen.
	wrong answer = "wrong"
	// unavailable is no verdict: the API server failed, or could not call the webhook and refused the write.
	unavailable answer = "unavailable"
	// undecided is a rule that could not decide, because a chart cannot be read or there is no time: refused with strict,
	// otherwise allowed with an audit annotation.
	undecided answer = "undecided"
	// open is a write that was allowed because the API server could not call the webhook and its failure policy is Ignore.
	open answer = "open"
	// admitted is one of wrong, undecided and open; the audit log has which.
	admitted answer = "admitted"
)

// attempt is one attempt of an honest write.
type attempt struct {
	kind  string // of the write
	phase string
	took  time.Duration
	// steady is set for the first attempts of the steady load, whose times are compared.
	steady bool
	answer answer
	// auditID finds the audit event of an attempt that was admitted.
	auditID string
	text    string
}

// ledger has every attempt of every honest write. It is safe for concurrent use.
type ledger struct {
	mu       sync.Mutex
	attempts []attempt
	lost     []string
	writes   int
}

func (l *ledger) add(a attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts = append(l.attempts, a)
}

// done records the end of a write; lost is why it got no verdict, empty if it did.
func (l *ledger) done(lost string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes++
	if lost != "" {
		l.lost = append(l.lost, lost)
	}
}

// classify returns what an answer of the API server means for a write that a rule has to refuse; empty for one that has to be
// allowed.
func classify(err error, rule string) answer {
	if err == nil {
		if rule == "" {
			return right
		}
		return admitted
	}
	text := err.Error()
	_, message, denied := strings.Cut(text, "denied the request: ")
	if denied {
		return classifyDenial(message, rule)
	}
	switch {
	case strings.Contains(text, "failed calling webhook"):
		return unavailable
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsNotFound(err), apierrors.IsAlreadyExists(err):
		return wrong
	}
	return unavailable // the API server itself
}

var ruleID = regexp.MustCompile(`\b[A-Z]{2}[0-9]{3}\b`)

// classifyDenial returns what a denial means: it may have findings, and rules that could not decide.
func classifyDenial(message, rule string) answer {
	inconclusive, findings := false, ""
	for line := range strings.Lines(message) {
		if strings.Contains(line, " could not be checked: ") || strings.Contains(line, "could not evaluate this object") || strings.Contains(line, " failed: ") {
			inconclusive = true
			continue
		}
		findings += line
	}
	switch {
	case rule != "" && strings.Contains(findings, rule):
		return right
	case inconclusive && !ruleID.MatchString(findings):
		return undecided
	}
	return wrong
}

// resolve replaces admitted by what the audit log has about it.
func (l *ledger) resolve(annotations map[string]map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.attempts {
		a := &l.attempts[i]
		if a.answer != admitted {
			continue
		}
		a.answer = wrong
		for key := range annotations[a.auditID] {
			switch _, name, _ := strings.Cut(key, "/"); {
			case strings.HasPrefix(key, "failed-open.validating.webhook.admission.k8s.io/"):
				a.answer = open
			case (name == "unknown" || name == "error") && a.answer == wrong:
				a.answer = undecided
			}
		}
		a.text = fmt.Sprintf("stored unseen: audit event %s, annotations %v", a.auditID, annotations[a.auditID])
		if a.answer == open && strings.HasPrefix(a.phase, strictPhase) {
			a.answer = wrong
		}
	}
}

// count returns how many attempts of a phase ended with an answer.
func (l *ledger) count(phase string, of answer) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, a := range l.attempts {
		if a.phase == phase && a.answer == of {
			n++
		}
	}
	return n
}

// percentile returns a percentile of the times of the steady load in a phase.
func (l *ledger) percentile(phase string, p int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var times []time.Duration
	for _, a := range l.attempts {
		if a.phase == phase && a.steady {
			times = append(times, a.took)
		}
	}
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(len(times)-1, len(times)*p/100)]
}

// problems describes what is wrong, and a sample of it.
func (l *ledger) problems() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	byText := map[string]int{}
	for _, a := range l.attempts {
		if a.answer == wrong {
			byText[fmt.Sprintf("phase %s, %s: %.600s", a.phase, a.kind, a.text)]++
		}
	}
	var out []string
	for _, text := range slices.Sorted(maps.Keys(byText)) {
		if len(out) == 10 {
			out = append(out, fmt.Sprintf("and %d others", len(byText)-len(out)))
			break
		}
		out = append(out, fmt.Sprintf("%d times wrong: %s", byText[text], text))
	}
	for i, text := range l.lost {
		if i == 10 {
			out = append(out, fmt.Sprintf("and %d others lost", len(l.lost)-i))
			break
		}
		out = append(out, "lost: "+text)
	}
	return out
}

func (l *ledger) totals() (writes, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes, len(l.lost)
}
