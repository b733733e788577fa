package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

const root = "../.."

// unmarshal reads a YAML file of the repository.
func unmarshal(t *testing.T, name string, into any) {
	t.Helper()
	if err := yaml.Unmarshal(read(t, name), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// parses returns an error if the program does not accept the arguments, without running the command.
func parses(args []string) error {
	c, rest, err := newRoot().Find(args)
	if err != nil {
		return err
	}
	if c.Name() == "flux-admission" {
		return fmt.Errorf("%q is not a command", args)
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	return c.ValidateArgs(c.Flags().Args())
}

// TestHook parses the entry of the pre-commit hook as arguments of the program.
func TestHook(t *testing.T) {
	var hooks []struct{ ID, Entry string }
	unmarshal(t, ".pre-commit-hooks.yaml", &hooks)
	if len(hooks) == 0 {
		t.Fatal("no hooks")
	}
	for _, h := range hooks {
		program, args, _ := strings.Cut(h.Entry, " ")
		if err := parses(strings.Fields(args)); err != nil || program != "flux-admission" {
			t.Errorf("%s: %q: %v", h.ID, h.Entry, err)
		}
	}
}

type action struct {
	Inputs map[string]struct{ Default string }
	Runs   struct{ Steps []actionStep }
}

type actionStep struct {
	Name, Run string
	Env       map[string]string
}

func readAction(t *testing.T) *action {
	t.Helper()
	var a action
	unmarshal(t, "action.yml", &a)
	return &a
}

// step returns the step of the action with this name.
func (a *action) step(t *testing.T, name string) actionStep {
	t.Helper()
	i := slices.IndexFunc(a.Runs.Steps, func(s actionStep) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("the action has no step %q", name)
	}
	return a.Runs.Steps[i]
}

var inputPattern = regexp.MustCompile(`\$\{\{ inputs\.([a-z-]+) }}`)

// TestAction_Injection requires that scripts get inputs from the environment only: an expression in a script would run
// what an input holds.
func TestAction_Injection(t *testing.T) {
	for _, s := range readAction(t).Runs.Steps {
		if strings.Contains(s.Run, "${{") {
			t.Errorf("step %q has an expression in its script:\n%s", s.Name, s.Run)
		}
	}
}

// runScript runs the script of a step with inputs; the others have their defaults. It replaces flux-admission, which
// fails, and go, which does not, by programs that print their arguments, one a line. It returns the exit code, the
// output, and the directory in which the script ran.
func (a *action) runScript(t *testing.T, step string, inputs map[string]string) (code int, stdout, dir string) {
	t.Helper()
	dir = t.TempDir()
	bin := t.TempDir()
	for program, code := range map[string]int{"flux-admission": 1, "go": 0} {
		stub := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$@\"\nexit %d\n", code)
		if err := os.WriteFile(filepath.Join(bin, program), []byte(stub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := a.step(t, step)
	cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", s.Run)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "RUNNER_TEMP=" + dir, "GITHUB_PATH=" + filepath.Join(dir, "path"),
	}
	for name, value := range s.Env {
		value = strings.ReplaceAll(value, "${{ github.action_path }}", dir)
		cmd.Env = append(cmd.Env, name+"="+inputPattern.ReplaceAllStringFunc(value, func(expression string) string {
			input := inputPattern.FindStringSubmatch(expression)[1]
			if given, ok := inputs[input]; ok {
				return given
			}
			return a.Inputs[input].Default
		}))
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if errOut.Len() > 0 {
		t.Errorf("standard error: %s", &errOut)
	}
	return cmd.ProcessState.ExitCode(), out.String(), dir
}

func TestAction_Check(t *testing.T) {
	a := readAction(t)
	cases := map[string]struct {
		inputs map[string]string
		want   []string
	}{
		"the defaults annotate the whole workspace": {
			want: []string{"check", "--no-progress", "--output=github", "--fail-on=deny", "--", "."},
		},
		"every input becomes a flag, and so does each line of charts": {
			inputs: map[string]string{
				"path": "clusters", "policy": "policy.yaml", "charts": "charts\nmy charts\n\n", "fetch-charts": "true", "baseline": "b.yaml", "changed-since": "main",
				"fail-on": "warn", "format": "junit",
			},
			want: []string{
				"check", "--no-progress", "--output=junit", "--fail-on=warn", "--policy=policy.yaml", "--baseline=b.yaml", "--changed-since=main", "--fetch-charts",
				"--charts=charts", "--charts=my charts", "--", "clusters",
			},
		},
		"a value like a command or a flag is not executed": {
			inputs: map[string]string{"path": "--help", "policy": "$(touch stolen); `touch stolen` \"'"},
			want: []string{
				"check", "--no-progress", "--output=github", "--fail-on=deny", "--policy=$(touch stolen); `touch stolen` \"'",
				"--", "--help",
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			code, stdout, dir := a.runScript(t, "Check", c.inputs)
			args := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
			if diff := cmp.Diff(c.want, args); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
			if code != 1 {
				t.Errorf("exit code %d, want 1, that of check", code)
			}
			if err := parses(args); err != nil {
				t.Errorf("the program does not accept %q: %v", args, err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("files after the step: %v (%v), want none", left, err)
			}
		})
	}
}

func TestAction_Report(t *testing.T) {
	a := readAction(t)
	code, stdout, dir := a.runScript(t, "Check", map[string]string{"format": "sarif", "report": "out.sarif"})
	report, err := os.ReadFile(filepath.Join(dir, "out.sarif"))
	if err != nil || !strings.Contains(string(report), "--output=sarif\n") || stdout != "" || code != 1 {
		t.Errorf("exit code %d, output %q, report %q, error %v", code, stdout, report, err)
	}
}

// codeBlocks returns the texts of the fenced code blocks of a page in a language, or in any for "".
func codeBlocks(t *testing.T, page, language string) []string {
	t.Helper()
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(string(read(t, page)), -1) {
		if language == "" || language == m[1] {
			blocks = append(blocks, m[2])
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no code", page)
	}
	return blocks
}

// documentedCalls returns the lines of docs/ci.md that run the program, at a prompt or in a script of GitLab.
func documentedCalls(t *testing.T) []string {
	t.Helper()
	var calls []string
	for _, b := range codeBlocks(t, "docs/ci.md", "") {
		for line := range strings.Lines(b) {
			line = strings.TrimSpace(line)
			for _, before := range []string{"$ ", "- "} {
				call, ok := strings.CutPrefix(line, before)
				if ok && (strings.HasPrefix(call, "flux-admission ") || strings.HasPrefix(call, "flux admission ")) && !strings.Contains(call, " completion ") {
					calls = append(calls, call)
				}
			}
		}
	}
	return calls
}

// TestDocumentation_Commands runs the commands of docs/ci.md in a tree without mistakes.
func TestDocumentation_Commands(t *testing.T) {
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	dir, bin := t.TempDir(), t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "flux-admission")); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		filepath.Join(bin, "flux"):           "#!/bin/sh\nplugin=$1; shift\nexec flux-\"$plugin\" \"$@\"\n",
		filepath.Join(dir, "configmap.yaml"): "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\n",
	}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	calls := documentedCalls(t)
	if len(calls) < 4 {
		t.Fatalf("docs/ci.md runs the program with %q only", calls)
	}
	for _, call := range calls {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", call)
		cmd.Dir = dir
		cmd.Env = []string{asBinary + "=1", "HOME=" + dir, "PATH=" + bin + ":" + os.Getenv("PATH")}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", call, err, out)
		}
	}
}

// TestDocumentation_Snippets parses the snippets of docs/ci.md: the inputs of the action exist, and check accepts the
// arguments of the hook.
func TestDocumentation_Snippets(t *testing.T) {
	a := readAction(t)
	steps, hooks := 0, 0
	for _, b := range codeBlocks(t, "docs/ci.md", "yaml") {
		var snippet struct {
			Jobs map[string]struct {
				Steps []struct {
					Uses string
					With map[string]string
				}
			}
			Repos []struct{ Hooks []struct{ Args []string } }
		}
		if err := yaml.Unmarshal([]byte(b), &snippet); err != nil {
			t.Errorf("%v in\n%s", err, b)
		}
		for _, job := range snippet.Jobs {
			for _, s := range job.Steps {
				if !strings.HasPrefix(s.Uses, "flux-admission/flux-admission@") {
					continue
				}
				steps++
				for name := range s.With {
					if _, ok := a.Inputs[name]; !ok {
						t.Errorf("the action has no input %s:\n%s", name, b)
					}
				}
			}
		}
		for _, r := range snippet.Repos {
			for _, h := range r.Hooks {
				hooks++
				if err := parses(append([]string{"check"}, h.Args...)); err != nil {
					t.Errorf("%q: %v", h.Args, err)
				}
			}
		}
	}
	if steps == 0 || hooks == 0 {
		t.Errorf("the snippets use the action %d times and the hook %d times", steps, hooks)
	}
}
