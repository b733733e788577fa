package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-logr/logr"

	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
)

// pollInterval is how often a policy file is read. The file is small, and reading it detects every kind of change: a write, a rename, the swapped
// symlink of a mounted ConfigMap.
const pollInterval = 500 * time.Millisecond

// maxFile limits how much of a policy file is read, in bytes. policy.Parse rejects a larger file.
const maxFile = 2 << 20

// File is a policy from a file.
type File struct {
	Current
	path     string
	compile  Compile
	reloaded Reloaded
	log      logr.Logger
	last     []byte
	lastErr  string
}

// NewFile loads a policy file. It fails if the file cannot be read or is invalid, since there is no earlier policy to keep.
func NewFile(path string, compile Compile, reloaded Reloaded, log logr.Logger) (*File, error) {
	f := &File{path: path, compile: compile, reloaded: reloaded, log: log}
	data, err := f.read()
	if err != nil {
		return nil, err
	}
	if err := f.load(data); err != nil {
		return nil, err
	}
	return f, nil
}

// Start reloads the file when it changes, until ctx is done.
func (f *File) Start(ctx context.Context) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			f.reload()
		}
	}
}

// NeedLeaderElection returns false: every replica reads its own file.
func (f *File) NeedLeaderElection() bool { return false }

// Ready returns nil: a File always has a policy.
func (f *File) Ready() error { return nil }

func (f *File) reload() {
	data, err := f.read()
	if err == nil {
		if bytes.Equal(data, f.last) {
			f.lastErr = ""
			return
		}
		err = f.load(data)
		f.reloaded(err == nil)
		if err == nil {
			f.log.Info("Reloaded the policy", "file", f.path)
		}
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	// Log each error once rather than at every poll.
	if text != "" && text != f.lastErr {
		f.log.Error(err, "Failed to reload the policy file; the last valid policy stays in effect", "file", f.path)
	}
	f.lastErr = text
}

func (f *File) read() ([]byte, error) {
	file, err := os.Open(f.path)
	if err != nil {
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			err = pathErr.Err
		}
		return nil, fmt.Errorf("--policy %s: %w", f.path, err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return nil, fmt.Errorf("--policy %s: %w", f.path, err)
	}
	return data, nil
}

func (f *File) load(data []byte) error {
	f.last = data
	parsed, err := policy.Parse(f.path, data)
	if err != nil {
		return err
	}
	p, err := f.compile(parsed)
	if err != nil {
		return policy.Locate(err, func(at validators.Path) validators.Position { return policy.PositionIn(f.path, at) })
	}
	f.set(p)
	return nil
}
