package budget

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// counts is an Observer that sums up.
type counts struct {
	memory     int64
	overdue    int
	overloaded bool
}

func (c *counts) AddMemory(n int64)   { c.memory += n }
func (c *counts) AddOverdue(n int)    { c.overdue += n }
func (c *counts) Overloaded(yes bool) { c.overloaded = yes }

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestBody_SmallOnesNeverWaitForLargeOnes fills the memory of large bodies.
func TestBody_SmallOnesNeverWaitForLargeOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counts{}
		b := New(c)
		var large []*Body
		for range 2 { // the first takes the shared part, the second may exceed it
			m := b.Body()
			if _, err := m.Grow(within(t, time.Second), largeBodies); err != nil {
				t.Fatal(err)
			}
			large = append(large, m)
		}
		if _, err := b.Body().Grow(within(t, time.Second), smallBody+1); !errors.Is(err, ErrOverloaded) {
			t.Errorf("%v; want no memory for a third large body", err)
		}
		if b.Ready() != nil {
			t.Error("large bodies alone make the server not ready")
		}
		for range smallBodies / smallBody {
			m := b.Body()
			defer m.Release()
			if waited, err := m.Grow(within(t, time.Second), smallBody); waited || err != nil {
				t.Fatalf("waited %v, %v", waited, err)
			}
		}
		// The one that may exceed the shared part can be read to its end.
		if waited, err := large[1].Grow(within(t, time.Second), MaxBody); waited || err != nil {
			t.Errorf("waited %v, %v", waited, err)
		}
		for _, m := range large {
			m.Release()
		}
		if c.memory != smallBodies {
			t.Errorf("%d bytes are taken; want %d", c.memory, smallBodies)
		}
	})
}

// TestBudget_NotReadyWhileOverloaded refuses small requests for some seconds.
func TestBudget_NotReadyWhileOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counts{}
		b := New(c)
		var running []*Evaluation
		for {
			e, err := b.Evaluate(within(t, time.Second), smallEvaluation)
			if err != nil {
				break
			}
			running = append(running, e)
		}
		if len(running) != (smallEvaluations+largeEvaluations)/smallEvaluation || !c.overloaded {
			t.Errorf("%d evaluations, overloaded %v", len(running), c.overloaded)
		}
		if err := b.Ready(); err != nil {
			t.Errorf("not ready at once: %v", err)
		}
		<-time.After(overloadTime)
		if err := b.Ready(); err == nil {
			t.Error("ready while small requests are refused")
		}
		running[0].End()
		// No request arrives while the server is not ready.
		if err := b.Ready(); err != nil || c.overloaded {
			t.Errorf("%v, overloaded %v; want ready", err, c.overloaded)
		}
		for _, e := range running {
			e.End()
		}
		if c.memory != 0 {
			t.Errorf("%d bytes are taken", c.memory)
		}
	})
}

// TestEvaluation_OverdueOnesGiveTheirShareBack has evaluations that do not end.
func TestEvaluation_OverdueOnesGiveTheirShareBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counts{}
		b := New(c)
		var stuck []*Evaluation
		for {
			e, err := b.Evaluate(within(t, time.Second), 1<<20)
			if err != nil {
				break
			}
			e.Overdue()
			e.Overdue()
			stuck = append(stuck, e)
		}
		if want := (smallEvaluations+largeEvaluations)/(1<<20) + min(maxOverdue, maxOverdueBytes>>20); len(stuck) != want || c.overdue != want {
			t.Errorf("%d evaluations, %d overdue; want %d", len(stuck), c.overdue, want)
		}
		if err := b.Live(); err != nil {
			t.Errorf("not live at once: %v", err)
		}
		<-time.After(minStuck + time.Second)
		if b.Live() == nil {
			t.Error("live although evaluations do not end")
		}
		for _, e := range stuck {
			e.End()
			e.End()
		}
		if err := errors.Join(b.Live(), b.Ready()); err != nil || c.memory != 0 || c.overdue != 0 {
			t.Errorf("%v, %d bytes, %d overdue", err, c.memory, c.overdue)
		}
		if !b.small.TryAcquire(smallEvaluations) || !b.large.TryAcquire(largeEvaluations) {
			t.Error("not all of the memory was given back")
		}
	})
}

// TestBudget_DeferredEvaluationsTakeNoneOfReviews fills the part of deferred evaluations.
func TestBudget_DeferredEvaluationsTakeNoneOfReviews(t *testing.T) {
	c := &counts{}
	b := New(c)
	e := b.Defer(deferredEvaluations)
	if e == nil || b.Defer(1) != nil {
		t.Fatal("want exactly the memory of deferred evaluations")
	}
	if _, err := b.Evaluate(within(t, time.Second), MaxEvaluation); err != nil {
		t.Error(err)
	}
	e.End()
	e.End()
	if c.memory != MaxEvaluation || b.Defer(1) == nil {
		t.Errorf("%d bytes are taken; want %d", c.memory, MaxEvaluation)
	}
}

// TestBudget_StuckDeferredEvaluations has deferred evaluations that do not end.
func TestBudget_StuckDeferredEvaluations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counts{}
		b := New(c)
		var stuck []*Evaluation
		for e := b.Defer(1 << 20); e != nil; e = b.Defer(1 << 20) {
			stuck = append(stuck, e)
			if len(stuck) < 3*maxOverdue {
				e.Begin(time.Now())
				e.Overdue()
			}
		}
		if want := deferredEvaluations>>20 + min(maxOverdue, maxOverdueBytes>>20); len(stuck) != want {
			t.Errorf("%d evaluations; want %d", len(stuck), want)
		}
		<-time.After(deferredStuck - time.Second)
		if err := b.Live(); err != nil {
			t.Errorf("not live at once: %v", err)
		}
		<-time.After(2 * time.Second)
		if b.Live() == nil {
			t.Error("live although evaluations do not end")
		}
		for _, e := range stuck {
			e.End()
		}
		if err := b.Live(); err != nil || c.memory != 0 || c.overdue != 0 || !b.deferred.TryAcquire(deferredEvaluations) {
			t.Errorf("%v, %d bytes, %d overdue", err, c.memory, c.overdue)
		}
	})
}
