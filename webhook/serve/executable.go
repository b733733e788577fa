package serve

import (
	"context"
	"time"

	"github.com/go-logr/logr"
)

// afterStart is how long after its start a server has initialized what it needs at rest.
const afterStart = 15 * time.Second

// executable gives back the pages of the executable that only the start needed. The packages' initialization touches all parts of the
// file, and the kernel maps 64 KiB around each page that is touched: without this, two thirds of the resident memory of an idle
// server are such pages.
type executable struct {
	log logr.Logger
}

// NeedLeaderElection returns false: each process has an executable.
func (e executable) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable. It does its work once: what is touched after the start is what requests need.
func (e executable) Start(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(afterStart):
	}
	if err := unmapExecutable(); err != nil {
		e.log.Error(err, "Failed to give back pages of the executable, which count as memory until the kernel needs them")
	}
	return nil
}
