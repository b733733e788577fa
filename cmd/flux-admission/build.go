package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/manifest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

type buildOptions struct {
	check.Input
	kind, namespace, name                string // of the only object to build; empty for all
	output                               string
	helm, controllerLabels, showsSecrets bool
}

func newBuild() *cobra.Command {
	var o buildOptions
	c := &cobra.Command{
		Use:   "build [ks|hr NAMESPACE/NAME] [PATH]",
		Short: "Print what Flux would apply from a Git tree",
		Long: "Build a Git tree as Flux would and print the objects in the order in which Flux\n" +
			"applies them: after kustomize, patches, target namespace and substitution. With\n" +
			"ks or hr and a name, only those of one Kustomization, or of one HelmRelease.\n" +
			"PATH is the root of the tree (default: .).\n\n" +
			"HelmReleases are templated with --helm, if their charts are known: give --charts\n" +
			"or --fetch-charts. Values of Secrets are masked. Variables without a value in Git\n" +
			"stay as they are, and are named on standard error.\n\n" +
			"Exit code 0: all that was selected is printed. 1: Flux or Helm could not build a\n" +
			"part of it, which is named on standard error and not printed. 2: build could not\n" +
			"run.",
		Example: "  flux-admission build ks flux-system/apps\n" +
			"  flux-admission build hr media/plex --fetch-charts\n" +
			"  flux-admission build --helm --charts charts --output json",
		Args: cobra.MaximumNArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.parse(args); err != nil {
				return err
			}
			o.Stdin = c.InOrStdin()
			return withoutWarnings(func() error { return runBuild(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr()) })
		},
	}
	addInputFlags(c, &o.Input)
	f := c.Flags()
	f.BoolVar(&o.helm, "helm", false, "also print the objects of the HelmReleases' charts (default false)")
	f.BoolVar(&o.controllerLabels, "controller-labels", false,
		"add the labels with which Flux's controllers mark what they apply (default false)")
	f.BoolVar(&o.showsSecrets, "show-secrets", false, "print the values of Secrets that are not encrypted (default false)")
	f.StringVarP(&o.output, "output", "o", "yaml", "format of the objects: yaml or json")
	return c
}

// parse reads the arguments: a path, or a kind and a name, which a path may follow.
func (o *buildOptions) parse(args []string) error {
	if len(args) < 2 {
		o.Path = pathOf(args)
		return nil
	}
	switch strings.ToLower(args[0]) {
	case "ks", "kustomization", "kustomizations":
		o.kind = flux.Kustomization.Kind
	case "hr", "helmrelease", "helmreleases":
		o.kind = flux.HelmRelease.Kind
	default:
		return fmt.Errorf("build %s %s: the first of two arguments is ks or hr, before NAMESPACE/NAME", args[0], args[1])
	}
	o.name = args[1]
	if namespace, name, ok := strings.Cut(args[1], "/"); ok {
		o.namespace, o.name = namespace, name
	}
	o.Path = pathOf(args[2:])
	return nil
}

// selects reports whether an object is to be built.
func (o *buildOptions) selects(kind, namespace, name string) bool {
	return o.kind == "" || o.kind == kind && o.name == name && (o.namespace == "" || o.namespace == namespace)
}

func runBuild(ctx context.Context, o buildOptions, stdout, stderr io.Writer) error {
	if o.output != "yaml" && o.output != "json" {
		return fmt.Errorf("--output %q: use yaml or json", o.output)
	}
	t, err := loadWithBar(ctx, o.Input, stderr)
	if err != nil {
		return err
	}
	defer t.Close()
	b := &builtObjects{buildOptions: o, variables: map[string]bool{}}
	for _, c := range t.Clusters() {
		if err := b.addCluster(ctx, t, c); err != nil {
			return err
		}
	}
	writeNotes(stderr, "not built, Flux refuses it or its input is unknown", b.failed)
	writeNotes(stderr, "not built completely", b.partial)
	writeNotes(stderr, "variables without a value in Git", slices.Sorted(maps.Keys(b.variables)))
	if o.kind != "" && b.selected != 1 {
		return o.errSelected(b.selected)
	}
	if b.selected == 0 {
		return errNothingChecked(o.Path)
	}
	write := manifest.WriteYAML
	if o.output == "json" {
		write = manifest.WriteJSON
	}
	if err := write(stdout, b.groups); err != nil {
		return fmt.Errorf("writing the objects: %w", err)
	}
	if b.fails {
		return runError{errFindings}
	}
	return nil
}

// errSelected is the error of a name that none or several objects have.
func (o *buildOptions) errSelected(n int) error {
	name := strings.TrimPrefix(o.namespace+"/"+o.name, "/")
	switch {
	case n == 0:
		return fmt.Errorf("%s %s is not in the tree; `flux-admission get ks` and `flux-admission get hr` list what is", o.kind, name)
	case o.namespace == "":
		return fmt.Errorf("%d objects are %s %s; give NAMESPACE/NAME, or --cluster NAME", n, o.kind, name)
	}
	return fmt.Errorf("%s %s is in %d clusters; give --cluster NAME for one of them", o.kind, name, n)
}

// builtObjects collects what build prints.
type builtObjects struct {
	buildOptions
	groups []manifest.Group
	// selected is how many Kustomizations, releases and clusters of plain manifests were selected.
	selected int
	// failed are not printed, partial lack objects.
	failed, partial []string
	variables       map[string]bool
	// fails means that Flux or Helm refuses something that was selected.
	fails bool
}

func (b *builtObjects) addCluster(ctx context.Context, t *check.Tree, c *kustomization.Cluster) error {
	in := ""
	if len(t.Clusters()) > 1 && c.Name != "" {
		in = " in " + c.Name
	}
	wantsReleases := b.helm && b.kind != flux.Kustomization.Kind || b.kind == flux.HelmRelease.Kind
	for _, k := range c.Kustomizations {
		if b.selects(flux.Kustomization.Kind, k.Key.Namespace, k.Key.Name) {
			b.selected++
			b.addKustomization(k, in)
			wantsReleases = wantsReleases || b.helm
		}
	}
	if c.Entry == nil && b.kind == "" && len(c.Objects) > 0 {
		b.selected++
		b.add("what kustomize builds"+in, c.Objects)
	}
	if !wantsReleases {
		return nil
	}
	releases, err := t.Releases(ctx, c)
	if err != nil {
		return err
	}
	for _, r := range releases {
		applied := b.helm && r.Kustomization != nil && b.kind == flux.Kustomization.Kind &&
			b.selects(flux.Kustomization.Kind, r.Kustomization.Key.Namespace, r.Kustomization.Key.Name)
		if !applied && !b.selects(flux.HelmRelease.Kind, r.GetNamespace(), r.GetName()) {
			continue
		}
		if !applied {
			b.selected++
		}
		b.addRelease(r, in)
	}
	return nil
}

func (b *builtObjects) addKustomization(k *kustomization.Kustomization, in string) {
	title := "Kustomization " + k.Key.String() + in
	var reasons []string
	refused := false
	for _, p := range k.Problems {
		switch p.Kind {
		case validators.ProblemVariableUnset:
			b.fails = true
			b.partial = append(b.partial, title+": "+p.String())
		case validators.ProblemPathMissing, validators.ProblemBuildFailed, validators.ProblemSpecInvalid:
			refused = true
			reasons = append(reasons, p.String())
		case validators.ProblemRemoteBase, validators.ProblemRemoteContent, validators.ProblemSourceUnknown:
			reasons = append(reasons, p.String())
		default: // Flux builds all the same
		}
	}
	reason := title + ": " + strings.Join(reasons, "; ")
	if k.State == kustomization.Unknown && len(reasons) == 0 {
		reason = fmt.Sprintf("%s: the source %s %s/%s is not this tree; give --source NAME=DIR", title, k.Source.Kind, k.Source.Namespace, k.Source.Name)
	}
	switch {
	case refused || k.State == kustomization.Unknown:
		b.fails = b.fails || refused || b.kind != ""
		b.failed = append(b.failed, reason)
		return
	case len(reasons) > 0:
		b.partial = append(b.partial, reason)
	}
	b.add(title, k.Objects)
}

// add adds what a Kustomization applies.
func (b *builtObjects) add(title string, objects []*kustomization.Object) {
	g := manifest.Group{Title: title}
	var owner *kustomization.Kustomization
	for _, o := range objects {
		for _, path := range o.Unresolved {
			text, _ := path.Lookup(o.Object).(string)
			for _, m := range variable.FindAllStringSubmatch(text, -1) {
				if !unresolved.IsEncrypted(text) {
					b.variables[m[1]] = true
				}
			}
		}
		owner = o.Kustomization
		g.Objects = append(g.Objects, o.Unstructured)
	}
	g.Objects = manifest.Order(g.Objects)
	if b.controllerLabels && owner != nil {
		g.Objects = manifest.WithLabels(g.Objects, manifest.OwnerLabels(flux.Kustomization, owner.Key))
	}
	b.addGroup(g)
}

// variable is a variable of Flux's substitution. The group is its name.
var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)`)

func (b *builtObjects) addRelease(r *check.Release, in string) {
	title := "HelmRelease " + r.GetNamespace() + "/" + r.GetName() + in
	if r.Err != nil {
		b.fails = true
		b.failed = append(b.failed, title+": "+r.Err.Error())
		return
	}
	g := manifest.Group{Title: title, Objects: r.Manifests}
	if b.controllerLabels {
		g.Objects = manifest.WithLabels(g.Objects, manifest.OwnerLabels(flux.HelmRelease, r.Key()))
	}
	b.addGroup(g)
}

func (b *builtObjects) addGroup(g manifest.Group) {
	masked := make([]*unstructured.Unstructured, 0, len(g.Objects))
	for _, o := range g.Objects {
		if !b.showsSecrets {
			o = manifest.Mask(o)
		}
		masked = append(masked, o)
	}
	g.Objects = masked
	b.groups = append(b.groups, g)
}
