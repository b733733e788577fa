package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Component is a program of the control plane.
type Component string

// The components.
const (
	Etcd      Component = "etcd"
	APIServer Component = "kube-apiserver"
)

// Pause stops a component from running, as a machine that is out of CPU does: its connections stay open and nothing is
// answered, until Resume.
func (cp *ControlPlane) Pause(c Component) error { return cp.signal(c, syscall.SIGSTOP) }

// Resume lets a paused component run on.
func (cp *ControlPlane) Resume(c Component) error { return cp.signal(c, syscall.SIGCONT) }

// Crash ends a component at once, as the crash of its machine does. It is down until Restart.
func (cp *ControlPlane) Crash(ctx context.Context, c Component) error {
	if err := os.WriteFile(cp.link(c)+".down", nil, 0o600); err != nil {
		return fmt.Errorf("crashing %s: %w", c, err)
	}
	if err := cp.signal(c, syscall.SIGKILL); err != nil {
		return err
	}
	err := wait.PollUntilContextTimeout(ctx, pollEvery, componentTimeout, true, func(context.Context) (bool, error) {
		_, err := os.Stat(cp.link(c) + ".pid")
		return errors.Is(err, fs.ErrNotExist), nil
	})
	if err != nil {
		return fmt.Errorf("crashing %s: %w", c, err)
	}
	return nil
}

// Restart starts a component that has crashed, with its data and at its address, and waits until the API server responds.
func (cp *ControlPlane) Restart(ctx context.Context, c Component) error {
	if err := os.Remove(cp.link(c) + ".down"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restarting %s: %w", c, err)
	}
	reader, err := client.New(cp.config, client.Options{})
	if err != nil {
		return fmt.Errorf("restarting %s: %w", c, err)
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, pollEvery, componentTimeout, true, func(ctx context.Context) (bool, error) {
		last = reader.Get(ctx, client.ObjectKey{Name: "default"}, &corev1.Namespace{})
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("restarting %s: %w", c, errors.Join(err, last))
	}
	return nil
}

func (cp *ControlPlane) link(c Component) string { return filepath.Join(cp.dir, string(c)) }

func (cp *ControlPlane) signal(c Component, s syscall.Signal) error {
	n, err := pid(cp.link(c))
	if err != nil {
		return err
	}
	if err := syscall.Kill(n, s); err != nil {
		return fmt.Errorf("sending %s to %s: %w", s, c, err)
	}
	return nil
}
