package env

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// container is how the Deployment of the manifests runs the webhook server.
type container struct {
	flags  []string
	mounts []string
	env    []string
	memory int64
}

// readContainer reads the Deployment. What it takes from the Pod's fields is left to serve's own defaults.
func readContainer() (*container, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(root, "manifests", "base", "deployment.yaml"))
	if err != nil {
		return nil, err
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict(data, &d); err != nil {
		return nil, fmt.Errorf("reading the Deployment: %w", err)
	}
	if len(d.Spec.Template.Spec.Containers) != 1 {
		return nil, errors.New("the Deployment has not exactly one container")
	}
	of := d.Spec.Template.Spec.Containers[0]
	c := &container{flags: of.Args[1:], memory: of.Resources.Limits.Memory().Value()}
	for _, m := range of.VolumeMounts {
		c.mounts = append(c.mounts, m.MountPath)
	}
	for _, v := range of.Env {
		if v.Value != "" {
			c.env = append(c.env, v.Name+"="+v.Value)
		}
	}
	if c.memory == 0 {
		return nil, errors.New("the Deployment has no limit of memory")
	}
	return c, nil
}

// args returns the flags after the command, with a directory in place of the mounted volumes.
func (c *container) args(dir string) []string {
	var out []string
	for _, flag := range c.flags {
		name, value, _ := strings.Cut(flag, "=")
		for _, m := range c.mounts {
			if value == m {
				flag = name + "=" + dir
			}
		}
		out = append(out, flag)
	}
	return out
}
