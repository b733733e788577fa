package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/chartinput"
	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/delivery"
	"github.com/flux-admission/flux-admission/internal/delivery/collect"
	"github.com/flux-admission/flux-admission/internal/delivery/locate"
	"github.com/flux-admission/flux-admission/internal/report"
)

type whyOptions struct {
	kubeconfig, kubecontext string
	files                   []string
	tree, cluster           string
	output                  string
	timeout                 time.Duration
	stdin                   io.Reader
	kind, name              string // of the object; empty for the whole cluster
}

func newWhy() *cobra.Command {
	var o whyOptions
	c := &cobra.Command{
		Use:   "why [KIND [NAMESPACE/]NAME]",
		Short: "Find the root of what is not ready in a cluster",
		Long: "Read the objects of a cluster and follow what each waits for: dependsOn, sources,\n" +
			"charts, values, substitutions, health checks, inventories, finalizers, webhooks and\n" +
			"API services. For everything that is not ready, print the roots: the objects that\n" +
			"somebody has to repair, what to do, and what waits behind each. With an object, print\n" +
			"only the roots of that one.\n\n" +
			"Nothing is changed, and of Secrets and ConfigMaps only the metadata is read. Kinds\n" +
			"that may not be listed are named as not looked at. With --filename no cluster is\n" +
			"read but the output of `kubectl get -o yaml` or `-o json`.\n\n" +
			"Exit code 0: everything that was looked at is ready. 1: something is not. 2: why\n" +
			"could not look.",
		Example: "  flux-admission why\n" +
			"  flux-admission why kustomization flux-system/apps --tree .\n" +
			"  kubectl get kustomizations,helmreleases -A -o yaml | flux-admission why -f -",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 && strings.Contains(args[0], "/") || len(args) > 2 {
				return errors.New("give a kind and a name, as in: kustomization flux-system/apps")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.stdin = c.InOrStdin()
			if len(args) == 1 {
				return fmt.Errorf("the name of the %s is missing", args[0])
			}
			if len(args) == 2 {
				o.kind, o.name = args[0], args[1]
			}
			return withoutWarnings(func() error { return runWhy(c.Context(), o, c.OutOrStdout()) })
		},
	}
	f := c.Flags()
	addClusterFlags(c, &o.kubeconfig, &o.kubecontext)
	f.StringArrayVarP(&o.files, "filename", "f", nil,
		"file or directory with objects and their status, in place of a cluster; - for standard input; repeatable (default: none)")
	f.StringVar(&o.tree, "tree", "", "root of the Git tree, to name the file and line of each root (default: none)")
	f.StringVar(&o.cluster, "cluster", "", "the cluster in the tree: the directory of its entry point, or the end of it (default: all)")
	f.StringVarP(&o.output, "output", "o", string(report.Text), "format of the report: text, json or html")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "longest time to read the cluster")
	return c
}

func runWhy(ctx context.Context, o whyOptions, stdout io.Writer) error {
	if !slices.Contains(report.DeliveryFormats(), report.Format(o.output)) {
		return fmt.Errorf("--output %q: use text, json or html", o.output)
	}
	if o.timeout <= 0 {
		return fmt.Errorf("--timeout %s must be positive", o.timeout)
	}
	in, err := o.read(ctx)
	if err != nil {
		return err
	}
	d := &report.Delivery{Tool: report.Tool{Name: "flux-admission", Version: versionString()}, Report: delivery.Analyze(in), Now: in.Now}
	if o.kind != "" {
		ref, err := findObject(in.Objects, o.kind, o.name)
		if err != nil {
			return err
		}
		d.Report, _ = d.Why(ref)
		d.Of = &ref
	}
	if o.tree != "" {
		t, err := check.Load(ctx, check.Input{Path: o.tree, Cluster: o.cluster, ChartCache: chartinput.NoCache})
		if err != nil {
			return fmt.Errorf("--tree: %w", err)
		}
		defer t.Close()
		locate.Roots(d.Report, t.Clusters())
	}
	opts := report.Options{}
	if f, ok := stdout.(*os.File); ok {
		opts.Color = report.ColorWanted(f, os.Getenv)
	}
	if err := report.WriteDelivery(stdout, report.Format(o.output), d, opts); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if len(d.Roots) > 0 {
		return runError{errFindings}
	}
	return nil
}

// read reads the files or the cluster.
func (o *whyOptions) read(ctx context.Context) (*delivery.Input, error) {
	if len(o.files) == 0 {
		config, err := clusterConfig(o.kubeconfig, o.kubecontext)
		if err != nil {
			return nil, err
		}
		config.Timeout = requestTimeout
		ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done after --timeout %s", o.timeout))
		defer cancel()
		return collect.Collect(ctx, config, collect.Options{})
	}
	in := &delivery.Input{}
	for _, file := range o.files {
		objects, err := readObjects(file, o.stdin)
		if err != nil {
			return nil, err
		}
		in.Objects = append(in.Objects, objects...)
	}
	if len(in.Objects) == 0 {
		return nil, fmt.Errorf("no objects in %s", strings.Join(o.files, ", "))
	}
	return in, nil
}

// readObjects reads a file, the files of a directory, or standard input.
func readObjects(file string, stdin io.Reader) ([]*unstructured.Unstructured, error) {
	if file == "-" {
		objects, err := delivery.Read(stdin)
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		return objects, nil
	}
	var out []*unstructured.Unstructured
	err := filepath.WalkDir(file, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		switch filepath.Ext(path) {
		case ".yaml", ".yml", ".json":
		default:
			if path != file {
				return nil
			}
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		objects, err := delivery.Read(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, objects...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("--filename: %w", err)
	}
	return out, nil
}

// findObject returns the object of a kind and name. The kind may be in lower case, plural or one of the short names of
// Flux.
func findObject(objects []*unstructured.Unstructured, kind, name string) (delivery.Ref, error) {
	namespace, base, qualified := strings.Cut(name, "/")
	if !qualified {
		namespace, base = "", name
	}
	var found []delivery.Ref
	kinds := false
	for _, o := range objects {
		ref := delivery.RefOf(o)
		if !isKind(ref.Kind, kind) {
			continue
		}
		kinds = true
		if ref.Name == base && (!qualified || ref.Namespace == namespace) && !slices.Contains(found, ref) {
			found = append(found, ref)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return delivery.Ref{}, fmt.Errorf("%s %s is ambiguous: %s and %s; give the namespace", kind, name, found[0], found[1])
	case !kinds:
		return delivery.Ref{}, fmt.Errorf("no object of kind %s was read", kind)
	}
	return delivery.Ref{}, fmt.Errorf("%s %s does not exist", kind, name)
}

// shortKinds are the short names of kinds, as kubectl has them.
var shortKinds = map[string]string{"ks": "kustomization", "hr": "helmrelease", "ns": "namespace", "crd": "customresourcedefinition", "es": "externalsecret"}

// isKind reports whether a user's word means the kind.
func isKind(kind, word string) bool {
	kind, word = strings.ToLower(kind), strings.ToLower(word)
	if short, ok := shortKinds[word]; ok {
		word = short
	}
	plural, _ := meta.UnsafeGuessKindToResource(schema.GroupVersionKind{Kind: kind})
	return word == kind || word == plural.Resource
}
