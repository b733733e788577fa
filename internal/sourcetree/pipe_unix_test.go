//go:build unix

package sourcetree_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
)

// TestOpen_Pipe: a named pipe is refused, and nobody waits for its writer.
func TestOpen_Pipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := sourcetree.Open(t.Context(), pipe, "", sourcetree.Limits{})
	if err == nil || !strings.Contains(err.Error(), "is neither a directory nor a file") {
		t.Errorf("Open: %v", err)
	}
}
