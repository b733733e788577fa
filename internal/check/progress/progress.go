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
	what  string
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

// Report shows that done of all objects are checked.
func (b *Bar) Report(done, all int) { b.show("checking", done, all) }

// Built shows that done of all Kustomizations known so far are built.
func (b *Bar) Built(done, all int) { b.show("building", done, all) }

func (b *Bar) show(what string, done, all int) {
	if b.to == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.bar == nil && time.Since(b.began) < showAfter {
		return
	}
	if b.bar != nil && b.what != what {
		_ = b.bar.Clear()
		b.bar = nil
	}
	if b.bar == nil {
		b.what = what
		b.bar = progressbar.NewOptions(all, progressbar.OptionSetWriter(b.to), progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish())
	}
	// An error of the terminal costs the bar only.
	if b.bar.GetMax() < all {
		b.bar.ChangeMax(all)
	}
	_ = b.bar.Set(min(done, b.bar.GetMax()))
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
