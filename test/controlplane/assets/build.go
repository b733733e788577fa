package assets

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// AssetsEnv names the environment variable that, as for envtest, points to a
// directory with etcd, kube-apiserver and kubectl to use instead.
const AssetsEnv = "KUBEBUILDER_ASSETS"

// KubernetesEnv names the environment variable with the minor version of the API server, such as 1.36; empty for the newest of those in
// modulesDir.
const KubernetesEnv = "FLUX_ADMISSION_TEST_KUBERNETES"

// buildTimeout bounds one program's build on a slow machine with empty caches.
const buildTimeout = 60 * time.Minute

// ControlPlane are the paths of the programs that a control plane consists of.
type ControlPlane struct {
	Etcd, APIServer, Kubectl string
	// Supervisor ends the others when the process that started them is gone.
	Supervisor string
}

// Flux are the paths of Flux's controllers.
type Flux struct{ SourceController, KustomizeController, HelmController string }

// component is one program that this package builds.
type component struct {
	name string
	// module is the directory under modulesDir whose go.mod decides what is
	// built, empty for the product's own module.
	module string
	pkg    string
	// sources are files, relative to the root, that decide what is built.
	sources []string
	// stamp is the module whose version the program reports through
	// k8s.io/component-base/version, empty if it reports none.
	stamp string
}

func fromModule(name, module, pkg, stamp string) component {
	dir := modulesDir + "/" + module
	return component{name: name, module: module, pkg: pkg, stamp: stamp, sources: []string{dir + "/go.mod", dir + "/go.sum"}}
}

func supervisorComponent() component {
	return component{name: "supervisor", pkg: "./test/controlplane/supervisor", sources: []string{"test/controlplane/supervisor/main.go"}}
}

// controlPlaneComponents are etcd, kube-apiserver and kubectl, in this order. The last two are built from a directory below modulesDir.
func controlPlaneComponents(kubernetes string) []component {
	return []component{
		fromModule("etcd", "etcd", "go.etcd.io/etcd/server/v3", ""),
		fromModule("kube-apiserver", kubernetes, "k8s.io/kubernetes/cmd/kube-apiserver", kubernetesModule),
		fromModule("kubectl", kubernetes, "k8s.io/kubernetes/cmd/kubectl", kubernetesModule),
	}
}

func fluxComponents() []component {
	return []component{
		fromModule("source-controller", "source-controller", "github.com/fluxcd/source-controller", ""),
		fromModule("kustomize-controller", "kustomize-controller", "github.com/fluxcd/kustomize-controller", ""),
		fromModule("helm-controller", "helm-controller", "github.com/fluxcd/helm-controller", ""),
	}
}

// certManagerComponent runs cert-manager's controllers. Its commands are not served as modules, so that the program is here.
func certManagerComponent() component {
	c := fromModule("cert-manager", "cert-manager", ".", "")
	c.sources = append(c.sources, modulesDir+"/cert-manager/main.go")
	return c
}

// BuildControlPlane returns the programs of a control plane. Those that are not in the cache are downloaded by
// setup-envtest, or built one after another where that fails; controlPlane has the order. Progress is written to out,
// which may be nil. Processes that call it at the same time wait for one another. A build that was interrupted continues
// where it stopped.
//
// With KUBEBUILDER_ASSETS set, etcd, kube-apiserver and kubectl are taken from that directory; one that is missing there
// is an error.
func BuildControlPlane(ctx context.Context, out io.Writer) (ControlPlane, error) {
	b, err := newBuilder(out)
	if err != nil {
		return ControlPlane{}, err
	}
	supervisor, err := b.build(ctx, supervisorComponent())
	if err != nil {
		return ControlPlane{}, err
	}
	paths, err := b.controlPlane(ctx, controlPlaneComponents(b.kubernetes))
	if err != nil {
		return ControlPlane{}, err
	}
	return ControlPlane{Etcd: paths[0], APIServer: paths[1], Kubectl: paths[2], Supervisor: supervisor}, nil
}

// BuildFlux is BuildControlPlane for Flux's source-controller,
// kustomize-controller and helm-controller. KUBEBUILDER_ASSETS does not change what it returns.
func BuildFlux(ctx context.Context, out io.Writer) (Flux, error) {
	b, err := newBuilder(out)
	if err != nil {
		return Flux{}, err
	}
	paths, err := b.buildAll(ctx, fluxComponents())
	if err != nil {
		return Flux{}, err
	}
	return Flux{SourceController: paths[0], KustomizeController: paths[1], HelmController: paths[2]}, nil
}

// BuildCertManager is BuildFlux for a program with the controllers of cert-manager.
func BuildCertManager(ctx context.Context, out io.Writer) (string, error) {
	b, err := newBuilder(out)
	if err != nil {
		return "", err
	}
	return b.build(ctx, certManagerComponent())
}

// providedAssets returns etcd, kube-apiserver and kubectl as they lie in dir.
func providedAssets(dir string) ([]string, error) {
	var paths []string
	for _, c := range controlPlaneComponents("kubernetes") {
		path := filepath.Join(dir, c.name)
		if !isExecutable(path) {
			return nil, fmt.Errorf("%s is %q, which holds no executable %s: point it to a directory with etcd, kube-apiserver and kubectl, or unset it to have them downloaded or built", AssetsEnv, dir, c.name)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// A builder provides programs and keeps them in a cache directory.
type builder struct {
	root, cache string
	out         io.Writer
	// kubernetes is the directory below modulesDir of the API server and kubectl.
	kubernetes string
	// index is the URL of setup-envtest's index of releases, empty for its default.
	index string
}

func newBuilder(out io.Writer) (*builder, error) {
	root, err := treeRoot()
	if err != nil {
		return nil, err
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("finding the cache directory for the programs of the test control plane: %w", err)
	}
	kubernetes := "kubernetes"
	if version := os.Getenv(KubernetesEnv); version != "" {
		kubernetes += "-" + version
		if _, err := os.Stat(filepath.Join(root, modulesDir, kubernetes, "go.mod")); err != nil {
			return nil, fmt.Errorf("%s is %q, and there is no module of that version: leave it empty for the newest, or write one of those in %s: %w",
				KubernetesEnv, version, modulesDir, err)
		}
	}
	return &builder{root: root, cache: filepath.Join(user, "flux-admission", "testenv"), out: out, kubernetes: kubernetes}, nil
}

func (b *builder) buildAll(ctx context.Context, components []component) ([]string, error) {
	var paths []string
	for _, c := range components {
		path, err := b.build(ctx, c)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// build returns the path of c's program and builds it if it is not there.
func (b *builder) build(ctx context.Context, c component) (_ string, err error) {
	dir, err := b.cacheDir(c)
	if err != nil {
		return "", err
	}
	target := filepath.Join(dir, c.name)
	if isExecutable(target) {
		return target, nil
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("building %s: %w", c.name, err)
	}

	// One lock for all programs: two builds at once only slow each other down.
	report := newProgress(b.out, c.name+": to be built once, from Go modules")
	defer func() {
		if err != nil {
			report.finish("%s: not built", c.name)
		}
	}()
	lock := flock.New(filepath.Join(b.cache, "build.lock"))
	report.set("%s: waiting for another build to end", c.name)
	if _, err := lock.TryLockContext(ctx, 250*time.Millisecond); err != nil {
		return "", fmt.Errorf("building %s: waiting for another build: %w", c.name, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if isExecutable(target) {
		report.finish("%s: built by another process", c.name)
		return target, nil
	}

	// A build that was killed may have left it; the lock proves that it has ended.
	scratch := filepath.Join(dir, ".building")
	if err := errors.Join(os.RemoveAll(scratch), os.Mkdir(scratch, 0o755)); err != nil {
		return "", fmt.Errorf("building %s: %w", c.name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	built := filepath.Join(scratch, c.name)
	if err := b.compile(ctx, c, built, report); err != nil {
		return "", fmt.Errorf("building %s (what is compiled so far is kept, so running it again goes on from there): %w", c.name, err)
	}
	if err := os.Rename(built, target); err != nil {
		return "", fmt.Errorf("building %s: %w", c.name, err)
	}
	report.finish("%s: built", c.name)
	return target, nil
}

// cacheDir is named after everything that decides what c's program is.
func (b *builder) cacheDir(c component) (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH, c.pkg, c.stamp)
	for _, source := range c.sources {
		data, err := os.ReadFile(filepath.Join(b.root, source))
		if err != nil {
			return "", fmt.Errorf("building %s: %w", c.name, err)
		}
		fmt.Fprintf(hash, "%s %d\n", source, len(data))
		hash.Write(data)
	}
	return filepath.Join(b.cache, c.name+"-"+hex.EncodeToString(hash.Sum(nil))[:16]), nil
}

// compile builds c into the file target.
func (b *builder) compile(ctx context.Context, c component, target string, report *progress) error {
	dir := b.root
	if c.module != "" {
		dir = filepath.Join(b.root, modulesDir, c.module)
	}
	flags := "-s -w"
	if c.stamp != "" {
		version, err := runGo(ctx, dir, nil, "list", "-mod=readonly", "-m", "-f", "{{.Version}}", c.stamp)
		if err != nil {
			return err
		}
		flags += " " + versionFlags(strings.TrimSpace(version))
	}

	// Listing the packages downloads every module that the build needs.
	modules := 0
	report.set("%s: downloading modules", c.name)
	listed, err := runGo(ctx, dir, func(line string) {
		if strings.HasPrefix(line, "go: downloading ") {
			modules++
			report.set("%s: downloading modules, %d so far", c.name, modules)
		}
	}, "list", "-mod=readonly", "-deps", c.pkg)
	if err != nil {
		return err
	}

	total, compiled := strings.Count(listed, "\n"), 0
	report.set("%s: compiling %d packages at most", c.name, total)
	_, err = runGo(ctx, dir, func(line string) {
		if line != "" && !strings.HasPrefix(line, "#") && !strings.ContainsAny(line, " \t:") {
			compiled++
			report.set("%s: compiled %d packages of %d at most", c.name, compiled, total)
		}
	}, "build", "-mod=readonly", "-buildvcs=false", "-v", "-ldflags", flags, "-o", target, c.pkg)
	return err
}

// versionFlags are the linker flags that Kubernetes' own build passes, so that
// `kubectl version` and the API server's /version say what they are.
func versionFlags(version string) string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	var flags []string
	for _, set := range []string{"gitVersion=" + version, "gitMajor=" + major, "gitMinor=" + minor, "gitCommit=", "gitTreeState=clean"} {
		flags = append(flags, "-X k8s.io/component-base/version."+set)
	}
	return strings.Join(flags, " ")
}

// goEnv is the environment of every go command that builds the test control plane. What a developer
// set for the product (flags, a workspace, a cross compilation) must neither
// break these builds nor change what is cached.
func goEnv() []string {
	return append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "GO111MODULE=on", "CGO_ENABLED=0", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
}

// keptLines is the number of last lines of a failed command in its error.
const keptLines = 20

// runGo runs the go command in dir and returns what it printed. Each line of
// its standard error goes to watch, which may be nil, and the last ones into
// the error.
func runGo(ctx context.Context, dir string, watch func(line string), args ...string) (string, error) {
	path, err := exec.LookPath("go")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("the go command is needed to run `go %s`: put it on the PATH", args[0])
	}
	if err != nil {
		return "", fmt.Errorf("finding the go command: %w", err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env = dir, goEnv()
	// go removes its temporary files when it is interrupted, not when killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	reader, writer := io.Pipe()
	cmd.Stderr = writer

	var tail []string
	read := make(chan error, 1)
	go func() {
		scanner := bufio.NewScanner(reader)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			if watch != nil {
				watch(scanner.Text())
			}
			tail = append(tail, scanner.Text())
			tail = tail[max(0, len(tail)-keptLines):]
		}
		// A line too long to scan must not block the command.
		_, err := io.Copy(io.Discard, reader)
		read <- errors.Join(scanner.Err(), err)
	}()
	err = cmd.Run()
	err = errors.Join(err, writer.Close(), <-read)
	if ctx.Err() != nil {
		return "", fmt.Errorf("go %s: %w", args[0], context.Cause(ctx))
	}
	if err != nil {
		return "", fmt.Errorf("go %s in %s: %w\n%s", args[0], dir, err, strings.Join(tail, "\n"))
	}
	return stdout.String(), nil
}
