package controlplane_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStart_KilledProcessLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), killedEnv+"=1", "TMPDIR="+tmp)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 512)
	n, err := stdout.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSpace(string(buffer[:n]))
	pids := processesUnder(t, dir)
	if len(pids) < 2 {
		t.Fatalf("processes started from %s: %v, want etcd and kube-apiserver", dir, pids)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the process ended by itself")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(processesUnder(t, dir)) > 0 {
		select {
		case <-ctx.Done():
			t.Fatalf("still running: %v", processesUnder(t, dir))
		case <-time.After(100 * time.Millisecond):
		}
	}
	requireEmpty(t, tmp)
}

// processesUnder returns the command lines that mention dir.
func processesUnder(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		// A process may have ended since its directory was listed.
		args, err := os.ReadFile(file)
		if err == nil && bytes.Contains(args, []byte(dir)) {
			found = append(found, file+": "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}
