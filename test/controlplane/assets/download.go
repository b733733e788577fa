package assets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	// installTimeout bounds the download of a control plane's programs, about 100 MB.
	installTimeout = 5 * time.Minute
	// lookTimeout bounds the search for programs that were downloaded before.
	lookTimeout = 30 * time.Second
)

// kubernetesModule is the module that decides the version of the control plane.
const kubernetesModule = "k8s.io/kubernetes"

// controlPlane returns the paths of etcd, kube-apiserver and kubectl, in this order, from the first of:
//
//   - the directory in KUBEBUILDER_ASSETS;
//   - the programs that were built from Go modules before;
//   - setup-envtest, which downloads the newest release of the minor version that the modules pin, unless it has done so
//     before;
//   - the Go modules.
//
// ENVTEST_INSTALLED_ONLY, a variable of setup-envtest, prevents the download.
func (b *builder) controlPlane(ctx context.Context, components []component) ([]string, error) {
	if dir := os.Getenv(AssetsEnv); dir != "" {
		return providedAssets(dir)
	}
	if paths, ok := b.built(components); ok {
		return paths, nil
	}
	paths, err := b.download(ctx)
	if err == nil {
		return paths, nil
	}
	if ctx.Err() != nil {
		return nil, err
	}
	if b.out != nil {
		fmt.Fprintf(b.out, "testenv: cannot download the control plane; building it from Go modules once, which takes 7 to 19 minutes. Reason: %v\n", err)
	}
	return b.buildAll(ctx, components)
}

// built returns the paths of the components' programs if all of them are in the cache.
func (b *builder) built(components []component) ([]string, bool) {
	var paths []string
	for _, c := range components {
		dir, err := b.cacheDir(c)
		if err != nil {
			return nil, false
		}
		path := filepath.Join(dir, c.name)
		if !isExecutable(path) {
			return nil, false
		}
		paths = append(paths, path)
	}
	return paths, true
}

// download returns the paths of etcd, kube-apiserver and kubectl from setup-envtest, which keeps them in the cache.
func (b *builder) download(ctx context.Context) (_ []string, err error) {
	version, err := runGo(ctx, filepath.Join(b.root, modulesDir, b.kubernetes), nil, "list", "-mod=readonly", "-m", "-f", "{{.Version}}", kubernetesModule)
	if err != nil {
		return nil, err
	}
	selector, err := minorSelector(version)
	if err != nil {
		return nil, err
	}
	tool, err := b.build(ctx, fromModule("setup-envtest", "setup-envtest", "sigs.k8s.io/controller-runtime/tools/setup-envtest", ""))
	if err != nil {
		return nil, err
	}
	if paths, err := b.setupEnvtest(ctx, lookTimeout, tool, selector, "--installed-only"); err == nil {
		return paths, nil
	}

	report := newProgress(b.out, "control plane "+selector+": waiting for another download")
	defer func() {
		if err != nil {
			report.finish("control plane %s: not downloaded", selector)
		}
	}()
	lock := flock.New(filepath.Join(b.cache, "build.lock"))
	if _, err := lock.TryLockContext(ctx, 250*time.Millisecond); err != nil {
		return nil, fmt.Errorf("downloading the control plane: waiting for another process: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	report.set("control plane %s: downloading", selector)
	paths, err := b.setupEnvtest(ctx, installTimeout, tool, selector)
	if err != nil {
		return nil, err
	}
	report.finish("control plane %s: downloaded", selector)
	return paths, nil
}

// setupEnvtest runs `setup-envtest use` and returns the programs in the directory that it prints.
func (b *builder) setupEnvtest(ctx context.Context, timeout time.Duration, tool, selector string, args ...string) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it took longer than %s", timeout))
	defer cancel()
	args = append([]string{"use", "--print", "path", "--bin-dir", filepath.Join(b.cache, "envtest")}, args...)
	if b.index != "" {
		args = append(args, "--index", b.index)
	}
	cmd := exec.CommandContext(ctx, tool, append(args, selector)...)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("setup-envtest use %s: %w: %s", selector, err, strings.Join(strings.Fields(stderr.String()), " "))
	}
	dir := strings.TrimSpace(stdout.String())
	var paths []string
	for _, c := range controlPlaneComponents(b.kubernetes) {
		path := filepath.Join(dir, c.name)
		if !isExecutable(path) {
			return nil, fmt.Errorf("setup-envtest use %s: the release in %s has no executable %s", selector, dir, c.name)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// minorSelector returns what selects the newest patch of a version's minor in setup-envtest: 1.37.x for v1.37.2.
func minorSelector(version string) (string, error) {
	parts := strings.Split(strings.TrimPrefix(strings.TrimSpace(version), "v"), ".")
	if len(parts) < 3 {
		return "", fmt.Errorf("version %q of %s has no minor version", strings.TrimSpace(version), kubernetesModule)
	}
	return parts[0] + "." + parts[1] + ".x", nil
}
