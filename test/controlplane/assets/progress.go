package assets

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// reportEvery is the time between two progress lines where lines cannot be
// rewritten; redrawEvery where they can.
const (
	reportEvery = 10 * time.Second
	redrawEvery = time.Second
)

// progress reports on a long step: one line that is rewritten on a terminal, a
// line now and then elsewhere. A nil *progress is silent.
type progress struct {
	out      io.Writer
	terminal bool
	began    time.Time
	done     chan struct{}
	stopped  sync.WaitGroup

	mu     sync.Mutex
	status string
}

// newProgress starts reporting to out until finish is called. It returns nil,
// which is silent, when out is nil.
func newProgress(out io.Writer, status string) *progress {
	if out == nil {
		return nil
	}
	p := &progress{out: out, status: status, began: time.Now(), done: make(chan struct{})}
	every := reportEvery
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal, every = true, redrawEvery
	}
	p.print()
	p.stopped.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-p.done:
				return
			case <-ticker.C:
				p.print()
			}
		}
	})
	return p
}

// set replaces the status of the next report.
func (p *progress) set(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = fmt.Sprintf(format, args...)
}

// finish prints a last line and stops reporting.
func (p *progress) finish(format string, args ...any) {
	if p == nil {
		return
	}
	close(p.done)
	p.stopped.Wait()
	p.set(format, args...)
	p.print()
	if p.terminal {
		p.write("\n")
	}
}

func (p *progress) print() {
	p.mu.Lock()
	line := fmt.Sprintf("testenv: %s, %d s", p.status, int(time.Since(p.began).Seconds()))
	p.mu.Unlock()
	if p.terminal {
		p.write("\r\x1b[K" + line)
		return
	}
	p.write(line + "\n")
}

// write drops an error on purpose: a closed terminal must not fail a build.
func (p *progress) write(s string) { _, _ = io.WriteString(p.out, s) }
