package serve

import (
	"context"
	"time"

	"github.com/go-logr/logr"
)

const (
	// startPoll is how often startPages looks whether the server is ready.
	startPoll = time.Second
	// startEnds is how long after that the reads of the start end: lists of informers, and the first charts.
	startEnds = 10 * time.Second
)

// startPages returns the pages of the executable that only the start used to the system, once. They are two thirds of the
// resident memory of a server at rest (decision 0200).
type startPages struct {
	checks map[string]func() error
	log    logr.Logger
}

// Start implements manager.Runnable. It ends when the pages have been returned, or with ctx.
func (p *startPages) Start(ctx context.Context) error {
	for !p.ready() {
		if !sleep(ctx, startPoll) {
			return nil
		}
	}
	if !sleep(ctx, startEnds) {
		return nil
	}
	released, err := releaseExecutable()
	if err != nil {
		p.log.V(1).Info("Pages of the start stay in memory", "error", err.Error())
		return nil
	}
	p.log.V(1).Info("Released pages of the start", "bytes", released)
	return nil
}

func (p *startPages) ready() bool {
	for _, check := range p.checks {
		if check() != nil {
			return false
		}
	}
	return true
}

// sleep reports whether the time passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
