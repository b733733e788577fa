package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// maxResident bounds the memory of a check of the hostile tree, in KiB: enough for schemas and libraries, and far below
// what the tree would take.
const maxResident = 1 << 20

// TestCheck_HostileTree checks, in a process of its own, one tree with every input that may exhaust or mislead a
// reader. Each is reported, the valid object is still checked, and memory is bounded.
func TestCheck_HostileTree(t *testing.T) {
	files := repository("flux-system", "enabled")
	app := func(name, text string) {
		files["apps/"+name+"/"+name+".yaml"] = text
		files["clusters/home/"+name+".yaml"] = strings.ReplaceAll(
			strings.ReplaceAll(fmt.Sprintf(child, "flux-system"), "./apps/db", "./apps/"+name), "name: db", "name: "+name,
		)
	}
	var bomb strings.Builder
	bomb.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\ndata:\n  a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(
			&bomb, "  a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1,
		)
	}
	app("bomb", bomb.String())
	app("huge", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: huge}\ndata:\n  a: "+strings.Repeat("x", 50<<20)+"\n")
	app("deep", "a: "+strings.Repeat("{a: ", 100_000)+strings.Repeat("}", 100_000)+"\n")
	app("binary", "a: \x00\x01\x02")
	app("latin", "a: b\nc: \xe9t\xe9\n")
	app("remote", "")
	delete(files, "apps/remote/remote.yaml")
	files["apps/remote/kustomization.yaml"] = "resources:\n  - https://example.com/base.yaml\n  - github.com/example/repo//base?ref=v1\n"
	app("many", configMapText("many"))
	for i := range 10_000 {
		files[fmt.Sprintf("docs/notes/%d.yaml", i)] = configMapText(fmt.Sprint("note-", i))
	}
	dir := writeTree(t, files)
	for name, to := range map[string]string{"apps/db/loop": ".", "apps/db/self": "self", "apps/db/passwd.yaml": "/etc/passwd", "apps/db/up": "../../.."} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "check", dir)
	c.Env = []string{asBinary + "=1", "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	var out, stderr strings.Builder
	c.Stdout, c.Stderr = &out, &stderr
	err := c.Run()
	if code := c.ProcessState.ExitCode(); code != 1 {
		t.Fatalf("exit code %d, %v: %s", code, err, stderr.String())
	}
	for _, want := range []string{
		"spec.monitoring.enabled is not a field of a CloudNativePG Cluster",
		"the file was not read: its values are more than 2000000 once its aliases are expanded",
		"the file was not read: it is larger than 8388608 bytes",
		"exceeded max depth",
		"the file is binary, not YAML",
		"the text is not UTF-8",
		"the remote resource https://example.com/base.yaml was not evaluated",
		"the remote resource github.com/example/repo//base?ref=v1 was not evaluated",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not have %q", want)
		}
	}
	if strings.Contains(out.String(), "root:") || strings.Contains(out.String(), "panic") {
		t.Error("the report quotes a file out of the tree, or a panic")
	}
	if t.Failed() {
		t.Log(out.String())
	}
	usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("no resource usage of the process")
	}
	t.Logf("%d MiB resident at most", usage.Maxrss>>10)
	if usage.Maxrss > maxResident {
		t.Errorf("%d KiB resident at most, want at most %d", usage.Maxrss, maxResident)
	}
}

func configMapText(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: apps}\n"
}

// TestInterrupt: a command that is blocked where nothing cancels it ends after a signal, with a message.
func TestInterrupt(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "--policy", pipe, t.TempDir()},
		{"build", "--vars-file", pipe, t.TempDir()},
		{"why", "--filename", pipe},
	} {
		t.Run(args[0], func(t *testing.T) {
			c := exec.CommandContext(t.Context(), os.Args[0], args...)
			c.Env = []string{asBinary + "=1", "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
			var stderr strings.Builder
			c.Stderr = &stderr
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			// It opens the other end when the command reads the pipe.
			w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}()
			if err := c.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			err = c.Wait()
			if code := c.ProcessState.ExitCode(); code != exitInterrupted || stderr.String() != interrupted+"\n" {
				t.Errorf("exit code %d, %v: %q", code, err, stderr.String())
			}
		})
	}
}
