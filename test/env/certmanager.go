package env

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/controlplane/assets"
)

const (
	// certificateName is the Certificate of the webhook servers, secretName its Secret.
	certificateName = "flux-admission"
	secretName      = "flux-admission-tls"
)

// CertManagerCRDs returns the directory with the CRDs of cert-manager's module.
func CertManagerCRDs(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("finding cert-manager's module: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "deploy", "crds")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cert-manager's module has no %s any more", dir)
	}
	return dir, nil
}

// startCertManager starts cert-manager's controllers, and adds its component and the files of its certificate to the
// options.
func (e *Env) startCertManager(ctx context.Context, o *Options) error {
	crds, err := CertManagerCRDs(ctx)
	if err != nil {
		return err
	}
	if err := e.ControlPlane.InstallCRDs(ctx, crds); err != nil {
		return err
	}
	path, err := assets.BuildCertManager(ctx, os.Stderr)
	if err != nil {
		return err
	}
	dir, err := e.mkdir("cert-manager")
	if err != nil {
		return err
	}
	e.CertManager, err = controlplane.StartProcess(controlplane.Command{
		Name: "cert-manager", Path: path, Dir: dir, Log: filepath.Join(dir, "log"),
		Supervisor: e.ControlPlane.Assets().Supervisor, Env: []string{"KUBECONFIG=" + e.ControlPlane.Kubeconfig()},
	})
	if err != nil {
		return err
	}
	e.ControlPlane.Cleanup(func() error { return e.CertManager.Stop(stopGrace) })
	o.Components = append(slices.Clone(o.Components), "cert-manager")
	o.Args = append(slices.Clone(o.Args),
		"--tls-cert-file="+filepath.Join(e.mounted(), corev1.TLSCertKey), "--tls-key-file="+filepath.Join(e.mounted(), corev1.TLSPrivateKeyKey))
	return nil
}

// mounted is the directory with the files of the certificate.
func (e *Env) mounted() string { return filepath.Join(e.ControlPlane.Dir(), "tls") }

// mountCertificate writes the files of the Secret of the certificate as a kubelet does: at first as soon as it exists, and
// a delay after each change, all files at once.
func (e *Env) mountCertificate(ctx context.Context, delay time.Duration) error {
	if err := os.Mkdir(e.mounted(), 0o750); err != nil {
		return err
	}
	var first *corev1.Secret
	err := wait.PollUntilContextTimeout(ctx, pollEvery, readyTimeout, true, func(ctx context.Context) (bool, error) {
		s, err := e.certificate(ctx)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		first = s
		return err == nil && len(s.Data[corev1.TLSCertKey]) > 0, err
	})
	if err != nil {
		log, _ := os.ReadFile(e.CertManager.Log())
		return fmt.Errorf("waiting for cert-manager to issue the certificate: %w\n%s", err, log)
	}
	if err := e.mount(first); err != nil {
		return err
	}
	mounting, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { e.remount(mounting, first, delay) })
	e.ControlPlane.Cleanup(func() error {
		cancel()
		running.Wait()
		return nil
	})
	return nil
}

func (e *Env) certificate(ctx context.Context) (*corev1.Secret, error) {
	var s corev1.Secret
	err := e.Client.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: secretName}, &s)
	return &s, err
}

// remount mounts each change of the Secret after the delay, until ctx ends.
func (e *Env) remount(ctx context.Context, last *corev1.Secret, delay time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pollEvery):
		}
		s, err := e.certificate(ctx)
		if err != nil || bytes.Equal(s.Data[corev1.TLSCertKey], last.Data[corev1.TLSCertKey]) {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		if e.mount(s) == nil {
			last = s
		}
	}
}

// mount replaces the files at once, by a link to their directory.
func (e *Env) mount(s *corev1.Secret) error {
	dir, err := os.MkdirTemp(e.mounted(), "..data-")
	if err != nil {
		return err
	}
	for name, data := range s.Data {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
		link := filepath.Join(e.mounted(), name)
		if err := os.Symlink(filepath.Join("..data", name), link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	next := filepath.Join(e.mounted(), "..data_tmp")
	if err := os.Symlink(filepath.Base(dir), next); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(e.mounted(), "..data"))
}
