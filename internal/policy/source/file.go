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
)

// fileEvery is how often a policy file is read. It is small, and reading it is the one way to notice every kind of change: a write, a rename, the
// swapped symlink of a mounted ConfigMap.
const fileEvery = 500 * time.Millisecond

// maxFile bounds what is read of a policy file, in bytes; a larger one is refused when it is parsed.
const maxFile = 2 << 20

// File is a policy in a file.
type File struct {
	Current
	path     string
	compile  Compile
	reloaded Reloaded
	log      logr.Logger
	last     []byte
	lastErr  string
}

// NewFile reads a policy file. It fails when that cannot be read or used: there is no good policy yet to keep.
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

// Start reads the file again whenever it changes, until ctx ends.
func (f *File) Start(ctx context.Context) error {
	ticker := time.NewTicker(fileEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			f.again()
		}
	}
}

// NeedLeaderElection tells the manager that every replica reads its file.
func (f *File) NeedLeaderElection() bool { return false }

// Ready is nil: a File exists only with a policy.
func (f *File) Ready() error { return nil }

func (f *File) again() {
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
	// Said once for each way in which it fails, not twice a second.
	if text != "" && text != f.lastErr {
		f.log.Error(err, "The policy file cannot be used; the last good policy stays in force", "file", f.path)
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
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.set(p)
	return nil
}
