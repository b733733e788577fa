package main

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progressAfter is how long a run has to last before a bar is shown.
const progressAfter = time.Second

// progress shows how far a long run has come, on a terminal only. It is safe for concurrent use.
type progress struct {
	to io.Writer

	mu    sync.Mutex
	began time.Time
	bar   *progressbar.ProgressBar
	ended bool
}

func newProgress(to io.Writer, off bool) *progress {
	f, ok := to.(*os.File)
	if off || !ok || !term.IsTerminal(int(f.Fd())) {
		to = nil
	}
	return &progress{to: to, began: time.Now()}
}

// report takes the state of the run.
func (p *progress) report(done, all int) {
	if p.to == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.bar == nil && time.Since(p.began) < progressAfter {
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions(all, progressbar.OptionSetWriter(p.to), progressbar.OptionSetDescription("checking"), progressbar.OptionShowCount(),
			progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	// A terminal that cannot be written to loses the bar, and nothing else.
	_ = p.bar.Set(done)
}

// end takes the bar away. It may be called again.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil && !p.ended {
		_ = p.bar.Clear()
	}
	p.ended = true
}

// silenceKustomize keeps kustomize from printing warnings about deprecated fields to standard error, once for every build: it offers no other way. What
// the program itself says goes to the stream that it was started with.
func silenceKustomize() {
	if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
		os.Stderr = null
	}
}
