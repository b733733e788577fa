package env

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	admissionregv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Overlay is the kustomization whose manifests are installed.
const Overlay = "manifests/overlays/self-managed"

// buildTimeout is for a machine that is busy with other tests.
const buildTimeout = 15 * time.Minute

// Root returns the directory of the product's go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "manifests", "base")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside the project: no manifests/base in this directory or above it")
		}
		dir = parent
	}
}

// build builds the binary of a version, which may be empty, in dir and returns its path.
func build(ctx context.Context, dir, version string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	path := filepath.Join(dir, "flux-admission"+version)
	args := []string{"build", "-o", path}
	if version != "" {
		args = append(args, "-ldflags=-X main.version="+version)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/flux-admission")...) //nolint:gosec // the test's own version
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building flux-admission: %w\n%s", err, out)
	}
	return path, nil
}

// install applies the project's manifests with strict validation. There is no network of pods here, so each webhook
// gets the URL of e.Address in place of its Service.
func (e *Env) install(ctx context.Context, options Options) error {
	dir, err := e.overlay(options.Resources, options.Components)
	if err != nil {
		return err
	}
	return e.installFrom(ctx, dir, options.FailurePolicy)
}

// InstallOverlay installs another overlay of manifests/overlays over the one that is installed, as an operator who changes
// to it.
func (e *Env) InstallOverlay(ctx context.Context, name string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	return e.installFrom(ctx, filepath.Join(root, "manifests", "overlays", name), e.failurePolicy)
}

func (e *Env) installFrom(ctx context.Context, dir string, failurePolicy admissionregv1.FailurePolicyType) error {
	return e.ControlPlane.InstallManifests(ctx, dir, func(o *unstructured.Unstructured) {
		switch {
		case strings.HasSuffix(o.GetKind(), "WebhookConfiguration"):
			editWebhooks(o, e.Address, failurePolicy)
		case o.GetKind() == "Certificate" && o.GetName() == certificateName:
			host, _, _ := strings.Cut(e.Address, ":")
			_ = unstructured.SetNestedStringSlice(o.Object, []string{host}, "spec", "ipAddresses")
		}
	})
}

// overlay returns the directory of the kustomization to install.
func (e *Env) overlay(resources, components []string) (string, error) {
	root, err := Root()
	if err != nil || len(resources)+len(components) == 0 {
		return filepath.Join(root, Overlay), err
	}
	dir, err := e.mkdir("overlay")
	if err != nil {
		return "", err
	}
	manifests, err := filepath.Rel(dir, filepath.Join(root, "manifests"))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "resources:\n  - %s\n", filepath.Join(manifests, "overlays", filepath.Base(Overlay)))
	for _, r := range resources {
		fmt.Fprintf(&b, "  - %s\n", filepath.Join(manifests, r))
	}
	b.WriteString("components:\n")
	for _, c := range components {
		fmt.Fprintf(&b, "  - %s\n", filepath.Join(manifests, "components", c))
	}
	return dir, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(b.String()), 0o600)
}

func editWebhooks(o *unstructured.Unstructured, address string, failurePolicy admissionregv1.FailurePolicyType) {
	webhooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	for _, w := range webhooks {
		hook, _ := w.(map[string]any)
		config, _ := hook["clientConfig"].(map[string]any)
		service, _ := config["service"].(map[string]any)
		path, _ := service["path"].(string)
		delete(config, "service")
		config["url"] = "https://" + address + path
		if failurePolicy != "" {
			hook["failurePolicy"] = string(failurePolicy)
		}
	}
	_ = unstructured.SetNestedSlice(o.Object, webhooks, "webhooks")
}
