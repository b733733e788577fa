package env

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flux-admission/flux-admission/test/controlplane"
)

// watchEvery is how often the memory of a process is read where no cgroup limits it.
const watchEvery = 20 * time.Millisecond

// memoryLimit is a hard limit on the memory of a process, as a container has it: a cgroup of its own, or, where none can be
// made, the end of a process that has taken more.
type memoryLimit struct {
	bytes  int64
	dir    string // the cgroup's; empty for none
	killed atomic.Bool
}

// newMemoryLimit makes a cgroup, of version 2 or 1, below the one of this process.
func newMemoryLimit(bytes int64) (*memoryLimit, error) {
	m := &memoryLimit{bytes: bytes}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return m, nil //nolint:nilerr // no cgroups here
	}
	for line := range strings.Lines(string(own)) {
		_, controllers, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, _ := strings.Cut(controllers, ":")
		var parent, file string
		switch {
		case controllers == "":
			parent, file = filepath.Join("/sys/fs/cgroup", path), "memory.max"
		case slices.Contains(strings.Split(controllers, ","), "memory"):
			parent, file = filepath.Join("/sys/fs/cgroup/memory", path), "memory.limit_in_bytes"
		default:
			continue
		}
		dir, err := os.MkdirTemp(parent, "flux-admission-test-")
		if err != nil {
			continue
		}
		if os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(bytes, 10)), 0o600) == nil {
			m.dir = dir
			return m, nil
		}
		if err := os.Remove(dir); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// enter has a command run inside of the limit from its first instruction.
func (m *memoryLimit) enter(c *controlplane.Command) {
	if m.dir == "" {
		return
	}
	c.Args = append([]string{"-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(m.dir, "cgroup.procs"), c.Path}, c.Args...)
	c.Path = "/bin/sh"
}

// watch ends a process that takes more than the limit, if no cgroup does.
func (m *memoryLimit) watch(p *controlplane.Process) {
	if m.dir != "" {
		return
	}
	go func() {
		for {
			select {
			case <-p.Ended():
				return
			case <-time.After(watchEvery):
			}
			pid, err := p.Pid()
			if err != nil {
				continue
			}
			if u, err := readUsage(pid); err == nil && u.Peak > m.bytes {
				m.killed.Store(true)
				_ = p.Signal(syscall.SIGKILL) // an error means that it has ended
				return
			}
		}
	}()
}

// exceeded reports whether a process has been killed because of the limit.
func (m *memoryLimit) exceeded() bool {
	if m.dir == "" {
		return m.killed.Load()
	}
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		data, err := os.ReadFile(filepath.Join(m.dir, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok && n != "0" {
				return true
			}
		}
	}
	return false
}

// remove removes the cgroup. Its processes have ended.
func (m *memoryLimit) remove() error {
	if m.dir == "" {
		return nil
	}
	var err error
	for range 50 { // a process that has just ended is in it for a moment
		if err = os.Remove(m.dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		<-time.After(watchEvery)
	}
	return fmt.Errorf("removing the cgroup: %w", err)
}

// Usage is the resident memory of a process, in bytes.
type Usage struct {
	Now, Peak int64
	// Heap is the part of Now that is not the pages of files, which the kernel takes back when memory is short.
	Heap int64
}

// Memory returns the memory of the process. The peak is that since its start, or since ResetPeak.
func (w *Webhook) Memory() (Usage, error) {
	pid, err := w.process.Pid()
	if err != nil {
		return Usage{}, err
	}
	return readUsage(pid)
}

// ResetPeak begins a new peak.
func (w *Webhook) ResetPeak() error {
	pid, err := w.process.Pid()
	if err != nil {
		return err
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o600)
}

// OutOfMemory reports whether a process of this webhook server was ever killed because of its limit of memory.
func (w *Webhook) OutOfMemory() bool { return w.memory != nil && w.memory.exceeded() }

// MemoryLimit is the hard limit in bytes; 0 without Options.Shipped.
func (w *Webhook) MemoryLimit() int64 {
	if w.memory == nil {
		return 0
	}
	return w.memory.bytes
}

func readUsage(pid int) (Usage, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "VmRSS:":
			u.Now = kib << 10
		case "VmHWM:":
			u.Peak = kib << 10
		case "RssAnon:":
			u.Heap = kib << 10
		}
	}
	return u, nil
}
