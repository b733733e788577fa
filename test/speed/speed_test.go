package speed_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// launcher is an empty Go program, which is the floor of every start. With arguments it runs a command and writes what
// that used: the peak of a process includes that of its parent up to the start, and this one is small.
const launcher = `package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 3 {
		return
	}
	c := exec.Command(os.Args[2], os.Args[3:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	began := time.Now()
	err := c.Run()
	wall := time.Since(began)
	if c.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
	used, _ := c.ProcessState.SysUsage().(*syscall.Rusage)
	text := fmt.Sprintf("{\"wall\": %d, \"cpu\": %d, \"peak\": %d}",
		wall, c.ProcessState.UserTime()+c.ProcessState.SystemTime(), used.Maxrss)
	if err := os.WriteFile(os.Args[1], []byte(text), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
	os.Exit(c.ProcessState.ExitCode())
}
`

// limit bounds one run of a command: each takes less than a minute on a quiet machine.
const limit = 5 * time.Minute

// usage is what processes used.
type usage struct {
	Wall, CPU time.Duration
	Peak      int64 // KiB
}

// programs are the binaries of a run.
type programs struct{ dir, launcher, product string }

func newPrograms(b *testing.B) *programs {
	b.Helper()
	p := &programs{dir: b.TempDir()}
	p.launcher, p.product = filepath.Join(p.dir, "launcher"), filepath.Join(p.dir, "flux-admission")
	source := filepath.Join(p.dir, "launcher.go")
	if err := os.WriteFile(source, []byte(launcher), 0o600); err != nil {
		b.Fatal(err)
	}
	for target, from := range map[string]string{
		p.launcher: source, p.product: "github.com/flux-admission/flux-admission/cmd/flux-admission",
	} {
		if out, err := goCommand(b.Context(), "build", "-trimpath", "-ldflags=-s -w", "-o", target, from).CombinedOutput(); err != nil {
			b.Fatalf("building %s: %v: %s", from, err, out)
		}
	}
	return p
}

func goCommand(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "go", args...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	return c
}

// run runs a command and adds what it used. Findings are no failure.
func (p *programs) run(b *testing.B, u *usage, command ...string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	report := filepath.Join(p.dir, "usage.json")
	c := exec.CommandContext(ctx, p.launcher, append([]string{report}, command...)...)
	var stderr strings.Builder
	c.Stdout, c.Stderr = io.Discard, &stderr
	var exit *exec.ExitError
	if err := c.Run(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		b.Fatalf("%s: %v: %s", strings.Join(command, " "), err, stderr.String())
	}
	text, err := os.ReadFile(report)
	if err != nil {
		b.Fatal(err)
	}
	var one usage
	if err := json.Unmarshal(text, &one); err != nil {
		b.Fatal(err)
	}
	u.Wall, u.CPU, u.Peak = u.Wall+one.Wall, u.CPU+one.CPU, max(u.Peak, one.Peak)
}

// measure runs a command in each round of a benchmark.
func (p *programs) measure(b *testing.B, command ...string) {
	b.Helper()
	var u usage
	for b.Loop() {
		p.run(b, &u, command...)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(u.Wall.Milliseconds())/float64(b.N), "ms-wall")
	b.ReportMetric(float64(u.CPU.Milliseconds())/float64(b.N), "ms-cpu")
	b.ReportMetric(float64(u.Peak)/1024, "MiB-peak")
}

// BenchmarkStart measures the start of the program, next to an empty one: `version`, and `check` of a tree of two
// Kustomizations.
func BenchmarkStart(b *testing.B) {
	p := newPrograms(b)
	tree := b.TempDir()
	writeTree(b, tree, 1)
	b.Run("empty", func(b *testing.B) { p.measure(b, p.launcher) })
	b.Run("version", func(b *testing.B) { p.measure(b, p.product, "version") })
	b.Run("check", func(b *testing.B) { p.measure(b, p.product, "check", "--no-progress", tree) })
}

// other is a tool that does a part of the same work.
type other struct {
	name, module string
	// command is the one for a tree and for its state before the change.
	command func(program, tree, before string) []string
	// does is what it does of the work of the command that it is next to.
	does string
}

// BenchmarkTree measures commands on a tree of n Kustomizations with ten objects each: `check` of it for the first time
// and again after one file has changed, `build`, and `diff` of the change. The other tools run on the same tree: those
// that are in the PATH, or else `go install` builds them.
func BenchmarkTree(b *testing.B) {
	p := newPrograms(b)
	others := []other{
		{"kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0", func(program, tree, _ string) []string {
			// Schemas are not downloaded: that would measure the network.
			return []string{program, "-summary", "-ignore-missing-schemas", "-schema-location", filepath.Join(p.dir, "none"), tree}
		}, "reads the files, without schemas"},
		{"flux-schema", "github.com/fluxcd/flux-schema/cmd/flux-schema@latest", func(program, tree, _ string) []string {
			return []string{program, "validate", "--skip-missing-schemas", "--schema-location", filepath.Join(p.dir, "none"), tree}
		}, "reads the files, without schemas"},
		{"flate-test", "github.com/home-operations/flate/cmd/flate@latest", func(program, tree, _ string) []string {
			return []string{program, "test", "ks", "--path", tree}
		}, "builds the Kustomizations"},
		{"flate-diff", "github.com/home-operations/flate/cmd/flate@latest", func(program, tree, before string) []string {
			return []string{program, "diff", "ks", "--path", tree, "--path-orig", before}
		}, "builds what changed, and compares it"},
	}
	installed := map[string]error{}
	for _, n := range []int{100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			before, tree := b.TempDir(), b.TempDir()
			writeTree(b, before, n)
			writeTree(b, tree, n)
			commit(b, tree)
			b.Run("check-cold", func(b *testing.B) { p.measure(b, p.product, "check", "--no-progress", tree) })
			write(b, tree, "apps/app-0/config-0.yaml", configMap(0, 0, "changed"))
			b.Run("check-warm", func(b *testing.B) { p.measure(b, p.product, "check", "--no-progress", tree) })
			b.Run("check-changed", func(b *testing.B) {
				p.measure(b, p.product, "check", "--no-progress", "--changed-since", "HEAD", tree)
			})
			b.Run("build", func(b *testing.B) { p.measure(b, p.product, "build", tree) })
			b.Run("diff", func(b *testing.B) { p.measure(b, p.product, "diff", "HEAD", tree) })
			for _, o := range others {
				program, err := p.install(b.Context(), o, installed)
				if err != nil {
					fmt.Printf("BenchmarkTree/%d/%s is not measured: %v\n", n, o.name, err)
					continue
				}
				b.Run(o.name, func(b *testing.B) {
					b.Logf("%s %s", o.name, o.does)
					p.measure(b, o.command(program, tree, before)...)
				})
			}
		})
	}
}

// install returns the path of another tool. What failed once is not tried again.
func (p *programs) install(ctx context.Context, o other, installed map[string]error) (string, error) {
	path, _, _ := strings.Cut(o.module, "@")
	name := filepath.Base(path)
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if err, done := installed[name]; done {
		return filepath.Join(p.dir, name), err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := goCommand(ctx, "install", o.module)
	c.Dir, c.Env = p.dir, append(c.Env, "GOBIN="+p.dir)
	var err error
	if out, failed := c.CombinedOutput(); failed != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		err = fmt.Errorf("go install %s: %w: %s", o.module, failed, strings.TrimSpace(lines[len(lines)-1]))
	}
	installed[name] = err
	return filepath.Join(p.dir, name), err
}

// commit makes a Git repository of a tree.
func commit(b *testing.B, dir string) {
	b.Helper()
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch", "main"}, {"add", "."},
		{"-c", "user.name=speed", "-c", "user.email=speed@example.com", "commit", "--quiet", "--message", "tree"},
	} {
		if out, err := exec.CommandContext(b.Context(), "git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			b.Fatalf("git %s: %v: %s", args[0], err, out)
		}
	}
}

func write(b *testing.B, dir, name, text string) {
	b.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func configMap(app, i int, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-%d-%d\ndata:\n  value: %q\n", app, i, value)
}

// writeTree writes a tree of n Kustomizations below an entry point. Each has a kustomization.yaml with a Deployment, a
// Service and eight ConfigMaps, and substitutes a variable. There is no HelmRelease: some tools would fetch its chart,
// and others would not.
func writeTree(b *testing.B, dir string, n int) {
	b.Helper()
	write(b, dir, "clusters/home/flux-system/gotk-sync.yaml", `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1m, url: https://git.example.com/fleet, ref: {branch: main}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 10m, path: ./clusters/home, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
---
apiVersion: v1
kind: Namespace
metadata: {name: apps}
`)
	for app := range n {
		write(b, dir, fmt.Sprintf("clusters/home/app-%d.yaml", app), fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: app-%[1]d, namespace: flux-system}
spec:
  interval: 10m
  path: ./apps/app-%[1]d
  prune: true
  targetNamespace: apps
  sourceRef: {kind: GitRepository, name: flux-system}
  postBuild: {substitute: {APP: web-%[1]d}}
`, app))
		at := fmt.Sprintf("apps/app-%d/", app)
		write(b, dir, at+"workload.yaml", fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: ${APP}
spec:
  selector: {matchLabels: {app: "${APP}"}}
  template:
    metadata: {labels: {app: "${APP}"}}
    spec: {containers: [{name: web, image: "example.com/web:1", envFrom: [{configMapRef: {name: config-%d-0}}]}]}
---
apiVersion: v1
kind: Service
metadata:
  name: ${APP}
spec: {selector: {app: "${APP}"}, ports: [{port: 80}]}
`, app))
		list := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - workload.yaml\n"
		for i := range 8 {
			name := fmt.Sprintf("config-%d.yaml", i)
			list += "  - " + name + "\n"
			write(b, dir, at+name, configMap(app, i, "x"))
		}
		write(b, dir, at+"kustomization.yaml", list)
	}
}
