package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const root = "../.."

// decode reads YAML that has nothing but the fields of into.
func decode(t *testing.T, name string, data []byte, into any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
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

// parses tells whether the program takes these arguments, as far as flags go.
func parses(args []string) error {
	c, rest, err := newRoot().Find(args)
	if err != nil {
		return err
	}
	if c.Name() == "flux-admission" {
		return fmt.Errorf("%q is no command", args)
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	return c.ValidateArgs(c.Flags().Args())
}

type hook struct {
	ID             string `yaml:"id"`
	Name           string `yaml:"name"`
	Description    string `yaml:"description"`
	Entry          string `yaml:"entry"`
	Language       string `yaml:"language"`
	MinimumVersion string `yaml:"minimum_pre_commit_version"`
	PassFilenames  *bool  `yaml:"pass_filenames"`
	AlwaysRun      bool   `yaml:"always_run"`
}

func hooks(t *testing.T) []hook {
	t.Helper()
	var list []hook
	decode(t, ".pre-commit-hooks.yaml", read(t, ".pre-commit-hooks.yaml"), &list)
	return list
}

func TestTheHookChecksTheWholeTree(t *testing.T) {
	list := hooks(t)
	if len(list) != 1 {
		t.Fatalf("%d hooks, want 1", len(list))
	}
	h := list[0]
	if h.ID != "flux-admission" || h.Language != "golang" || h.PassFilenames == nil || *h.PassFilenames || !h.AlwaysRun {
		t.Errorf("the hook is %+v", h)
	}
	program, args, _ := strings.Cut(h.Entry, " ")
	if err := parses(strings.Fields(args)); err != nil || program != "flux-admission" {
		t.Errorf("%q: %v", h.Entry, err)
	}
}

type action struct {
	Name        string            `yaml:"name"`
	Description string            `yaml:"description"`
	Branding    map[string]string `yaml:"branding"`
	Inputs      map[string]struct {
		Description string  `yaml:"description"`
		Default     *string `yaml:"default"`
	} `yaml:"inputs"`
	Outputs map[string]struct {
		Description string `yaml:"description"`
		Value       string `yaml:"value"`
	} `yaml:"outputs"`
	Runs struct {
		Using string       `yaml:"using"`
		Steps []actionStep `yaml:"steps"`
	} `yaml:"runs"`
}

type actionStep struct {
	Uses  string            `yaml:"uses"`
	Name  string            `yaml:"name"`
	Shell string            `yaml:"shell"`
	With  map[string]string `yaml:"with"`
	Env   map[string]string `yaml:"env"`
	Run   string            `yaml:"run"`
}

func theAction(t *testing.T) action {
	t.Helper()
	var a action
	decode(t, "action.yml", read(t, "action.yml"), &a)
	return a
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

func TestTheActionHasItsInputsInOrder(t *testing.T) {
	a := theAction(t)
	if a.Runs.Using != "composite" {
		t.Errorf("the action is %q", a.Runs.Using)
	}
	used := map[string]bool{}
	for _, s := range a.Runs.Steps {
		if s.Run != "" && s.Shell != "bash" {
			t.Errorf("%s: a script of a composite action needs a shell, got %q", s.Name, s.Shell)
		}
		if strings.Contains(s.Run, "${{") {
			t.Errorf("%s: an expression stands in the script, so that whoever sets the input can run commands:\n%s", s.Name, s.Run)
		}
		for _, value := range s.Env {
			for _, m := range inputPattern.FindAllStringSubmatch(value, -1) {
				used[m[1]] = true
			}
		}
	}
	if declared := slices.Sorted(maps.Keys(a.Inputs)); !slices.Equal(declared, slices.Sorted(maps.Keys(used))) {
		t.Errorf("declared are the inputs %v, used %v", declared, slices.Sorted(maps.Keys(used)))
	}
	for name, in := range a.Inputs {
		if in.Description == "" || in.Default == nil {
			t.Errorf("the input %s has no description or no default", name)
		}
	}
}

// runScript runs a script of a step with these inputs, the others at their defaults. Programs that print their arguments, one a line, stand in the places of
// flux-admission, which fails, and of go, which does not. It returns the exit code and what was printed, and the directory in which it ran.
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
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "RUNNER_TEMP=" + dir, "GITHUB_PATH=" + filepath.Join(dir, "path")}
	for name, value := range s.Env {
		value = strings.ReplaceAll(value, "${{ github.action_path }}", dir)
		cmd.Env = append(cmd.Env, name+"="+inputPattern.ReplaceAllStringFunc(value, func(expression string) string {
			input := inputPattern.FindStringSubmatch(expression)[1]
			if given, ok := inputs[input]; ok {
				return given
			}
			return *a.Inputs[input].Default
		}))
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if errOut.Len() > 0 {
		t.Errorf("the script complains: %s", &errOut)
	}
	return cmd.ProcessState.ExitCode(), out.String(), dir
}

func TestTheActionCallsCheckByItsInputs(t *testing.T) {
	a := theAction(t)
	cases := map[string]struct {
		inputs map[string]string
		want   []string
	}{
		"the defaults make annotations of the whole workspace": {
			want: []string{"check", "--no-progress", "--output=github", "--fail-on=deny", "--", "."},
		},
		"every input becomes a flag, and each line of charts one of its own": {
			inputs: map[string]string{
				"path": "clusters", "policy": "policy.yaml", "charts": "charts\nmy charts\n\n", "fetch-charts": "true", "baseline": "b.yaml", "changed-since": "main",
				"fail-on": "warn", "format": "junit",
			},
			want: []string{
				"check", "--no-progress", "--output=junit", "--fail-on=warn", "--policy=policy.yaml", "--baseline=b.yaml", "--changed-since=main", "--fetch-charts",
				"--charts=charts", "--charts=my charts", "--", "clusters",
			},
		},
		"what looks like a command or a flag is a value": {
			inputs: map[string]string{"path": "--help", "policy": "$(touch stolen); `touch stolen` \"'"},
			want:   []string{"check", "--no-progress", "--output=github", "--fail-on=deny", "--policy=$(touch stolen); `touch stolen` \"'", "--", "--help"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			code, stdout, dir := a.runScript(t, "Check", c.inputs)
			args := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
			if !slices.Equal(args, c.want) {
				t.Errorf("called with\n%q, want\n%q", args, c.want)
			}
			if code != 1 {
				t.Errorf("the step ends with %d, check with 1", code)
			}
			if err := parses(args); err != nil {
				t.Errorf("the program does not take %q: %v", args, err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("there are files now: %v (%v)", left, err)
			}
		})
	}
}

func TestTheActionInstallsItsOwnVersionOrAnother(t *testing.T) {
	a := theAction(t)
	for version, want := range map[string]string{
		"": "install\n./cmd/flux-admission\n", "v0.1.0": "install\ngithub.com/flux-admission/flux-admission/cmd/flux-admission@v0.1.0\n",
	} {
		code, stdout, dir := a.runScript(t, "Install flux-admission", map[string]string{"version": version})
		path, err := os.ReadFile(filepath.Join(dir, "path"))
		if err != nil || code != 0 || stdout != want || string(path) != filepath.Join(dir, "flux-admission")+"\n" {
			t.Errorf("version %q: exit code %d, go is called with %q, the path gets %q (%v)", version, code, stdout, path, err)
		}
	}
}

func TestTheActionWritesAReportAndFailsAllTheSame(t *testing.T) {
	a := theAction(t)
	code, stdout, dir := a.runScript(t, "Check", map[string]string{"format": "sarif", "report": "out.sarif"})
	report, err := os.ReadFile(filepath.Join(dir, "out.sarif"))
	if err != nil || !strings.Contains(string(report), "--output=sarif\n") || stdout != "" || code != 1 {
		t.Errorf("exit code %d, output %q, report %q, error %v", code, stdout, report, err)
	}
}

// codeBlock is a fenced block of a page.
type codeBlock struct{ language, text string }

func codeBlocks(t *testing.T, page string) []codeBlock {
	t.Helper()
	var blocks []codeBlock
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(string(read(t, page)), -1) {
		blocks = append(blocks, codeBlock{m[1], m[2]})
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no code", page)
	}
	return blocks
}

// documentedCalls are the lines of the page that call check, rules or explain, in its order: at a prompt, and in the script of GitLab.
func documentedCalls(t *testing.T) []string {
	t.Helper()
	var calls []string
	for _, b := range codeBlocks(t, "docs/ci.md") {
		for line := range strings.Lines(b.text) {
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

// The commands are run as they stand there, in a tree without mistakes.
func TestWhatTheDocumentationCallsRuns(t *testing.T) {
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
	if len(calls) < 6 {
		t.Fatalf("docs/ci.md calls the program with %q only", calls)
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

func TestTheDocumentationNamesFlagsThatThereAre(t *testing.T) {
	check, _, err := newRoot().Find([]string{"check"})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile("`--([a-z-]+)(=[^`]*)?`").FindAllStringSubmatch(string(read(t, "docs/ci.md")), -1) {
		if m[1] == "context" { // one of Flux's own
			continue
		}
		found++
		if check.Flags().Lookup(m[1]) == nil {
			t.Errorf("docs/ci.md names --%s, which check does not have", m[1])
		}
	}
	if found < 4 {
		t.Errorf("docs/ci.md names %d flags", found)
	}
}

func TestTheSnippetsUseWhatTheWrappersOffer(t *testing.T) {
	a, ids := theAction(t), map[string]bool{}
	for _, h := range hooks(t) {
		ids[h.ID] = true
	}
	steps, used := 0, 0
	for _, b := range codeBlocks(t, "docs/ci.md") {
		if b.language != "yaml" {
			continue
		}
		var snippet struct {
			Jobs map[string]struct {
				Steps []actionStep `yaml:"steps"`
			} `yaml:"jobs"`
			Repos []struct {
				Repo  string `yaml:"repo"`
				Hooks []struct {
					ID   string   `yaml:"id"`
					Args []string `yaml:"args"`
				} `yaml:"hooks"`
			} `yaml:"repos"`
		}
		if err := yaml.Unmarshal([]byte(b.text), &snippet); err != nil {
			t.Errorf("%v in\n%s", err, b.text)
		}
		for _, job := range snippet.Jobs {
			for _, s := range job.Steps {
				if !strings.HasPrefix(s.Uses, "flux-admission/flux-admission@") {
					continue
				}
				steps++
				for name := range s.With {
					if _, ok := a.Inputs[name]; !ok {
						t.Errorf("a snippet sets the input %s, which the action does not have:\n%s", name, b.text)
					}
				}
			}
		}
		for _, r := range snippet.Repos {
			for _, h := range r.Hooks {
				used++
				if err := parses(append([]string{"check"}, h.Args...)); err != nil || !ids[h.ID] {
					t.Errorf("the hook %s with %q: %v", h.ID, h.Args, err)
				}
			}
		}
	}
	if steps == 0 || used == 0 {
		t.Errorf("the snippets use the action %d times and a hook %d times", steps, used)
	}
}

func TestTheDocumentationListsTheInputsOfTheAction(t *testing.T) {
	page := string(read(t, "docs/ci.md"))
	for name := range theAction(t).Inputs {
		if !strings.Contains(page, "\n| `"+name+"` | ") {
			t.Errorf("docs/ci.md does not list the input %s", name)
		}
	}
}
