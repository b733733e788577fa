package sharedinputs

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestDir(t *testing.T) {
	tests := []struct {
		name            string
		exists, require bool
		want            string
	}{
		{"a directory that exists is returned", true, false, "returned"},
		{"a directory that exists is returned when it is required", true, true, "returned"},
		{"a missing directory skips the test", false, false, "skipped"},
		{"a missing directory fails the test when it is required", false, true, "failed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			parent := t.TempDir()
			root := filepath.Join(parent, "module")
			if test.exists {
				if err := os.Mkdir(filepath.Join(parent, "shared"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv(RequireVariable, map[bool]string{true: "1", false: ""}[test.require])
			recorded := &recorder{TB: t}
			done := make(chan string)
			go func() { // FailNow and SkipNow end the goroutine
				defer close(done)
				done <- dir(recorded, root)
			}()
			got, returned := <-done
			outcome := recorded.outcome
			if returned {
				outcome = "returned"
				if want := filepath.Join(parent, "shared"); got != want {
					t.Errorf("Dir returned %s, want %s", got, want)
				}
			}
			if outcome != test.want {
				t.Errorf("the test was %s, want %s", outcome, test.want)
			}
		})
	}
}

func TestModuleRoot(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "test", "sharedinputs")); err != nil {
		t.Errorf("%s is not the root of this module: %v", root, err)
	}
}

// recorder records how a test ended in place of ending the one that runs.
type recorder struct {
	testing.TB
	outcome string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(string, ...any) { r.end("failed") }

func (r *recorder) Skipf(string, ...any) { r.end("skipped") }

func (r *recorder) end(outcome string) {
	r.outcome = outcome
	runtime.Goexit()
}
