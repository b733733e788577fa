package source_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/policy/source"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

func compile(t *testing.T) source.Compile {
	t.Helper()
	s, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mutators.NewSet()
	if err != nil {
		t.Fatal(err)
	}
	return func(p *v1alpha1.AdmissionPolicy) (*policy.Policy, error) { return policy.Compile(p, s, m, nil) }
}

const (
	enforce = "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {mode: Enforce}\n"
	audit   = "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {mode: AuditOnly}\n"
)

func TestNewFile_Errors(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct{ path, text, want string }{
		"a missing file":    {filepath.Join(dir, "nope.yaml"), "", "nope.yaml: no such file or directory"},
		"a directory":       {dir, "", "is a directory"},
		"an invalid policy": {filepath.Join(dir, "bad.yaml"), "a: b\n", `bad.yaml:1: apiVersion: is not set; must be "flux-admission.dev/v1alpha1"`},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.text != "" {
				write(t, tc.path, tc.text)
			}
			_, err := source.NewFile(tc.path, compile(t), func(bool) {}, logr.Discard())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestFile_Start(t *testing.T) {
	// As in a mounted ConfigMap, the file is a symlink into a directory that is swapped.
	dir := t.TempDir()
	for name, text := range map[string]string{"v1": enforce, "v2": audit} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o750); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "policy.yaml"), text)
	}
	link(t, dir, "v1")
	var accepted, rejected atomic.Int64
	f, err := source.NewFile(filepath.Join(dir, "current", "policy.yaml"), compile(t), func(ok bool) {
		if ok {
			accepted.Add(1)
		} else {
			rejected.Add(1)
		}
	}, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Start(ctx) }()
	if f.Get().AuditOnly() {
		t.Error("the first policy has mode AuditOnly, want Enforce")
	}
	link(t, dir, "v2")
	eventually(t, "the swapped file is loaded", func() bool { return f.Get().AuditOnly() && accepted.Load() == 1 })
	write(t, filepath.Join(dir, "v2", "policy.yaml"), "a: [\n")
	eventually(t, "the invalid file is rejected", func() bool { return rejected.Load() == 1 })
	if !f.Get().AuditOnly() {
		t.Error("the last valid policy is not in effect any more")
	}
	if err := os.Remove(filepath.Join(dir, "v2", "policy.yaml")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "v2", "policy.yaml"), enforce)
	eventually(t, "the repaired file is loaded", func() bool { return !f.Get().AuditOnly() })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, dir, target string) {
	t.Helper()
	tmp := filepath.Join(dir, "next")
	if err := os.Symlink(target, tmp); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 seconds: %s", what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
