package soak_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/flux-admission/flux-admission/test/env"
)

const (
	// livenessPeriod and livenessFailures are those of the Deployment: the period, and the default of Kubernetes.
	livenessPeriod   = 10 * time.Second
	livenessFailures = 3
	// livenessTimeout is longer than Kubernetes' second: here the machine is busy with everything else, too.
	livenessTimeout = 10 * time.Second
)

// kubelet starts a replica again when it ends, and ends it when its liveness check fails.
type kubelet struct {
	webhook *env.Webhook

	mu       sync.Mutex // of the webhook's process
	expected bool       // it was killed by the test
	problems []string
	restarts int
}

// run watches the replica until ctx ends.
func (k *kubelet) run(ctx context.Context) {
	failures, last := 0, time.Now()
	for ctx.Err() == nil {
		sleep(ctx, 100*time.Millisecond)
		select {
		case <-k.webhook.Process().Ended():
			k.restart(ctx)
			failures = 0
			continue
		default:
		}
		if time.Since(last) < livenessPeriod {
			continue
		}
		last = time.Now()
		if reason := k.alive(ctx); reason == "" || ctx.Err() != nil {
			failures = 0
		} else if failures++; failures == livenessFailures {
			k.problem("its liveness check failed: %s\n%s", reason, k.webhook.LogTail())
			k.kill()
		}
	}
}

func (k *kubelet) problem(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.problems = append(k.problems, fmt.Sprintf(format, args...))
}

// restart starts the process again, until that succeeds.
func (k *kubelet) restart(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.expected {
		reason := "it ended by itself"
		if k.webhook.OutOfMemory() {
			reason = "it was killed for its memory"
		}
		k.problems = append(k.problems, fmt.Sprintf("%s: %v", reason, k.webhook.Process().Failure()))
	}
	k.expected = false
	for ctx.Err() == nil {
		k.restarts++
		err := k.webhook.Restart(ctx)
		if err == nil {
			return
		}
		// It ends when it cannot connect to the API server; kubelet starts it again.
		if ctx.Err() == nil && !strings.Contains(err.Error(), "does not respond") && !strings.Contains(err.Error(), "waiting for the webhook server to be ready") {
			k.problems = append(k.problems, fmt.Sprintf("it did not start: %v", err))
		}
		sleep(ctx, time.Second)
	}
}

// kill ends the process as a crash of its node does.
func (k *kubelet) kill() {
	k.mu.Lock()
	k.expected = true
	err := k.webhook.Kill()
	k.mu.Unlock()
	if err != nil {
		k.problem("killing it: %v", err)
	}
}

// alive returns why the liveness check failed; empty if it did not.
func (k *kubelet) alive(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, livenessTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+k.webhook.Health+"/healthz", nil)
	if err != nil {
		return err.Error()
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	if err := response.Body.Close(); err != nil {
		return err.Error()
	}
	if response.StatusCode != http.StatusOK {
		return response.Status
	}
	return ""
}

// state is what a replica uses.
type state struct {
	rss, peak, heap int64
	goroutines      float64
}

func (k *kubelet) state(ctx context.Context) (state, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	u, err := k.webhook.Memory()
	if err != nil {
		return state{}, err
	}
	n, err := k.webhook.Metric(ctx, "go_goroutines")
	return state{u.Now, u.Peak, u.Heap, n}, err
}
