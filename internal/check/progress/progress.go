// Package progress shows on a terminal how much of a long run is done.
package progress

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// showAfter is how long a run must last before the bar is shown.
const showAfter = time.Second

// Bar is a progress bar. It is safe for concurrent use.
type Bar struct {
	to io.Writer

	mu    sync.Mutex
	began time.Time
	bar   *progressbar.ProgressBar
	ended bool
}

// New returns a bar on a writer. It shows nothing if the writer is not a terminal, or with off.
func New(to io.Writer, off bool) *Bar {
	f, ok := to.(*os.File)
	if off || !ok || !term.IsTerminal(int(f.Fd())) {
		to = nil
	}
	return &Bar{to: to, began: time.Now()}
}

// Report shows that done of all steps are done.
func (b *Bar) Report(done, all int) {
	if b.to == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.bar == nil && time.Since(b.began) < showAfter {
		return
	}
	if b.bar == nil {
		b.bar = progressbar.NewOptions(all, progressbar.OptionSetWriter(b.to), progressbar.OptionSetDescription("checking"),
			progressbar.OptionShowCount(), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish())
	}
	// An error of the terminal costs the bar only.
	_ = b.bar.Set(done)
}

// End removes the bar. Further calls do nothing.
func (b *Bar) End() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar != nil && !b.ended {
		_ = b.bar.Clear()
	}
	b.ended = true
}
