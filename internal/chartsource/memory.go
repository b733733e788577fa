package chartsource

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/semaphore"
)

// The memory for decoding charts at admission, in bytes: a quarter of the 256 MiB that the server is installed with.
const (
	decodeMemory = 64 << 20
	// decodeBase and decodeFactor estimate what one chart takes, by its size without compression. Compiling a schema takes
	// up to 100 times its size.
	decodeBase   = 4 << 20
	decodeFactor = 64
)

// decodeWeight estimates the memory for decoding a chart's archive. It decompresses no more than shows that the chart has
// to be decoded alone.
func decodeWeight(archive []byte) int64 {
	gz, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return decodeBase
	}
	text, _ := io.ReadAll(io.LimitReader(gz, (decodeMemory-decodeBase)/decodeFactor)) // the reader of the chart reports errors
	if bytes.Contains(text, []byte("\x1f\x8b\x08")) {
		return decodeMemory // an archive in it
	}
	return min(decodeMemory, decodeBase+decodeFactor*int64(len(text)))
}

// decoding waits until there is memory for decoding an archive, and returns a function that gives it back. A check has no
// limit.
func (l *loader) decoding(ctx context.Context, weight func() int64) (done func(), err error) {
	if l.memory == nil {
		return func() {}, nil
	}
	n := weight()
	if err := l.memory.Acquire(ctx, n); err != nil {
		return nil, fmt.Errorf("waiting for memory to decode the chart: %w", err)
	}
	return func() { l.memory.Release(n) }, nil
}

// newDecodeMemory returns the memory of a webhook server; nil for a check.
func newDecodeMemory(opts Options) *semaphore.Weighted {
	if opts.Templates {
		return nil
	}
	return semaphore.NewWeighted(decodeMemory)
}
