package chartsource

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// held takes a slot until its fetch is ended, and counts those that were.
func held(t *testing.T, s *slots, namespace string, ended *[]string) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		x, err := s.acquire(ctx, tenant{namespace, ""}, cancel)
		if err != nil {
			return
		}
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), errPreempted) {
			s.mu.Lock()
			*ended = append(*ended, namespace)
			s.mu.Unlock()
		}
		x.end()
	}()
	synctest.Wait()
}

// TestSlots_Preempt has fetches that never end.
func TestSlots_Preempt(t *testing.T) {
	for name, tc := range map[string]struct {
		share  int
		others []string
		after  time.Duration // when the waiting fetch has its slot
		want   string        // the fetches that were ended
	}{
		"one of the tenant with the most":               {3, []string{"a", "b", "b", "b", "c", "c", "c", "d"}, shareAfter, "[b]"},
		"one that has run long, when all have only one": {3, []string{"a", "b", "c", "d", "e", "f", "g", "h"}, yieldAfter, "[a]"},
		"none, when there are slots":                    {3, []string{"a", "b", "b"}, 0, "[]"},
		"none without a limit for tenants":              {8, []string{"a", "a", "a", "a", "b", "b", "b", "b"}, time.Hour, "[]"},
		"none for a tenant that has a slot":             {3, []string{"a", "a", "a", "b", "b", "b", "c", "honest"}, time.Hour, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSlots(8, tc.share)
				var ended []string
				for _, ns := range tc.others {
					held(t, s, ns, &ended)
					<-time.After(time.Millisecond)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				begin := time.Now()
				x, err := s.acquire(ctx, tenant{"honest", ""}, func(error) {})
				took := time.Since(begin)
				if late := took - tc.after; late < -time.Second || late > time.Second || (err == nil) != (tc.after < time.Hour) {
					t.Errorf("%v after %s; want a slot after %s", err, took, tc.after)
				}
				if err == nil {
					x.end()
				}
				synctest.Wait()
				s.mu.Lock()
				if got := fmt.Sprint(ended); got != tc.want {
					t.Errorf("ended %s; want %s", got, tc.want)
				}
				s.mu.Unlock()
			})
		})
	}
}
