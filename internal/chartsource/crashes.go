package chartsource

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	// maxCrashes bounds the charts that are recorded.
	maxCrashes = 256
	// crashesToRefuse is the number of times that a process may end while it reads a chart before no review reads it.
	crashesToRefuse = 2
)

// errCrashed is the error of a chart that is not read because the process ended while it was read before.
var errCrashed = errors.New("the process ended while it was reading this chart")

// crashes records which charts are being read, in a directory that outlives the process: a file for each, with how often the
// process would have ended while reading it. A chart that kills the process is then not read at each start. It is safe for
// concurrent use.
type crashes struct {
	root *os.Root // nil without a directory

	mu     sync.Mutex
	counts map[string]int // by file name
}

// openCrashes reads the records of a directory, which it creates if necessary; an empty one means no records.
func openCrashes(dir string) (*crashes, error) {
	c := &crashes{counts: map[string]int{}}
	if dir == "" {
		return c, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the state directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the state directory: %w", err)
	}
	if c.counts, err = readCrashes(root); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	c.root = root
	return c, nil
}

// readCrashes reads the newest records, and removes the others.
func readCrashes(root *os.Root) (map[string]int, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("listing the state directory: %w", err)
	}
	var files []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() && len(e.Name()) == hex.EncodedLen(sha256.Size) {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return cmp.Compare(b.ModTime().UnixNano(), a.ModTime().UnixNano()) })
	counts := map[string]int{}
	for i, f := range files {
		if i >= maxCrashes {
			_ = root.Remove(f.Name())
			continue
		}
		data, err := root.ReadFile(f.Name())
		n, invalid := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil || invalid != nil || n < 1 {
			n = 1 // the process ended while it wrote the record
		}
		counts[f.Name()] = n
	}
	return counts, nil
}

func crashFile(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// count returns how often a process ended while it was reading a chart.
func (c *crashes) count(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[crashFile(key)]
}

// begin records that a chart is being read. The function that it returns records that the process has survived.
func (c *crashes) begin(key string) (end func(), err error) {
	if c.root == nil {
		return func() {}, nil
	}
	name := crashFile(key)
	if err := c.root.WriteFile(name, []byte(strconv.Itoa(c.count(key)+1)), 0o600); err != nil {
		return func() {}, fmt.Errorf("writing to the state directory: %w", err)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.counts, name)
		_ = c.root.Remove(name)
	}, nil
}

func (c *crashes) close() error {
	if c.root == nil {
		return nil
	}
	return c.root.Close()
}

type prefetchKey struct{}

// WithPrefetch returns a context for lookups that no review waits for. They do not read a chart that a process ended while
// reading.
func WithPrefetch(ctx context.Context) context.Context {
	return context.WithValue(ctx, prefetchKey{}, true)
}

// refused returns an error for a chart that is not read because of what happened before.
func (c *crashes) refused(ctx context.Context, src source) error {
	switch n := c.count(src.key()); {
	case n >= crashesToRefuse:
		return fmt.Errorf("%s: %w %d times; it is read again when the Pod is replaced", src, errCrashed, n)
	case n > 0 && ctx.Value(prefetchKey{}) != nil:
		return fmt.Errorf("%s: %w", src, errCrashed)
	}
	return nil
}
