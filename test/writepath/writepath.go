// Package writepath holds the ways in which people and Flux write an object to an API server. They differ in what the API server
// checks and drops before it asks a webhook, so a rule is proven on each of them.
package writepath

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/flux"
)

// Answer is what came back from a write.
type Answer struct {
	// Err is the refusal; nil when the write was admitted. Its text is what a person sees.
	Err error
	// Text is what was printed, or what the library returned, on an admitted write.
	Text string
	// Warnings are those of the API server, where the path shows them.
	Warnings []string
}

// String is the refusal or the text, after the warnings.
func (a Answer) String() string {
	lines := []string{}
	for _, w := range a.Warnings {
		lines = append(lines, "Warning: "+w)
	}
	if a.Err != nil {
		return strings.Join(append(lines, a.Err.Error()), "\n")
	}
	return strings.Join(append(lines, a.Text), "\n")
}

// Path is one way to write an object.
type Path struct {
	Name  string
	write func(ctx context.Context, cp *controlplane.ControlPlane, manifest string) Answer
}

// Write sends a manifest of one object.
func (p Path) Write(ctx context.Context, cp *controlplane.ControlPlane, manifest string) Answer {
	return p.write(ctx, cp, manifest)
}

// Kubectl writes with the real kubectl; the manifest is its standard input. Args begin with the command.
func Kubectl(args ...string) Path {
	return Path{"kubectl " + strings.Join(args, " "), func(ctx context.Context, cp *controlplane.ControlPlane, manifest string) Answer {
		stdout, stderr, err := cp.Kubectl(ctx, strings.NewReader(manifest), append(args, "-f", "-")...)
		var a Answer
		var rest []string
		for line := range strings.Lines(stderr) {
			if w, ok := strings.CutPrefix(line, "Warning: "); ok {
				a.Warnings = append(a.Warnings, strings.TrimSpace(w))
			} else {
				rest = append(rest, line)
			}
		}
		a.Text = strings.TrimSpace(stdout)
		if err != nil {
			a.Err = errors.New(strings.TrimSpace(strings.Join(rest, "")))
		}
		return a
	}}
}

// Flux writes as kustomize-controller does: fluxcd/pkg/ssa, ApplyAllStaged, for the Kustomization flux-system/apps. Its warnings go nowhere.
func Flux() Path {
	return Path{"Flux (fluxcd/pkg/ssa, ApplyAllStaged)", func(ctx context.Context, cp *controlplane.ControlPlane, manifest string) Answer {
		o, err := Parse(manifest)
		if err != nil {
			return Answer{Err: err}
		}
		changes, err := flux.Apply(ctx, cp.Config(), client.ObjectKey{Namespace: "flux-system", Name: "apps"}, o)
		if err != nil {
			return Answer{Err: err}
		}
		return Answer{Text: strings.TrimSpace(changes.String())}
	}}
}

// Create writes with a Go client that validates nothing, as operators do.
func Create(opts ...client.CreateOption) Path {
	return Path{"a Go client, create", func(ctx context.Context, cp *controlplane.ControlPlane, manifest string) Answer {
		return byClient(cp, manifest, "created", func(c client.Client, o *unstructured.Unstructured) error {
			return c.Create(ctx, o, opts...)
		})
	}}
}

// ServerSideApply writes by server-side apply with a Go client.
func ServerSideApply() Path {
	return Path{"a Go client, server-side apply", func(ctx context.Context, cp *controlplane.ControlPlane, manifest string) Answer {
		return byClient(cp, manifest, "serverside-applied", func(c client.Client, o *unstructured.Unstructured) error {
			return c.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test"), client.ForceOwnership)
		})
	}}
}

// MergePatch patches the stored object that the manifest names; nothing else of the manifest counts.
func MergePatch(patch string) Path {
	return Path{"a Go client, merge patch " + patch, func(ctx context.Context, cp *controlplane.ControlPlane, manifest string) Answer {
		return byClient(cp, manifest, "patched", func(c client.Client, o *unstructured.Unstructured) error {
			return c.Patch(ctx, o, client.RawPatch(types.MergePatchType, []byte(patch)))
		})
	}}
}

func byClient(cp *controlplane.ControlPlane, manifest, done string, write func(client.Client, *unstructured.Unstructured) error) Answer {
	o, err := Parse(manifest)
	if err != nil {
		return Answer{Err: err}
	}
	warnings := &recorder{}
	config := cp.Config()
	config.WarningHandlerWithContext = warnings
	c, err := client.New(config, client.Options{Scheme: runtime.NewScheme()})
	if err != nil {
		return Answer{Err: fmt.Errorf("connecting to the API server: %w", err)}
	}
	err = write(c, o)
	return Answer{Err: err, Text: done, Warnings: warnings.all()}
}

// recorder keeps the warnings of one client.
type recorder struct {
	mu    sync.Mutex
	texts []string
}

var _ rest.WarningHandlerWithContext = (*recorder)(nil)

func (r *recorder) HandleWarningHeaderWithContext(_ context.Context, code int, _, text string) {
	if code != 299 || text == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts = append(r.texts, text)
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.texts
}

// Parse reads a manifest of one object.
func Parse(manifest string) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		return nil, fmt.Errorf("reading a manifest: %w", err)
	}
	return o, nil
}
