package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// maxStdin bounds what is read from standard input, in bytes.
const maxStdin = 256 << 20

// treeOptions say what is checked by what. check and fix share them.
type treeOptions struct {
	entryPoints, charts, crds, vars, varsFiles, sources []string
	policy                                              string
	allowRemoteBases, fetchCharts                       bool
}

func (o *treeOptions) addTo(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&o.entryPoints, "entrypoint", nil, "directory of a Flux entry point, relative to PATH; may be repeated (default: found)")
	f.StringArrayVar(&o.charts, "charts", nil, "directory with Helm charts and chart archives; may be repeated")
	f.BoolVar(&o.fetchCharts, "fetch-charts", false, "fetch charts that are in none of the --charts directories from their repositories")
	f.StringArrayVar(&o.crds, "crds", nil, "directory or file with CustomResourceDefinitions that the tree does not apply; may be repeated")
	f.StringArrayVar(&o.vars, "var", nil, "NAME=VALUE of a variable that is not in Git; may be repeated, and comes before --vars-file")
	f.StringArrayVar(&o.varsFiles, "vars-file", nil, "file with variables that are not in Git: NAME=VALUE lines, or a map in YAML; may be repeated")
	f.StringArrayVar(&o.sources, "source", nil, "NAME=DIR: the directory that stands for another source; may be repeated")
	f.StringVar(&o.policy, "policy", "", "file with the AdmissionPolicy (default: the one in the tree, or the one that ships)")
	f.BoolVar(&o.allowRemoteBases, "allow-remote-bases", false, "let kustomizations fetch remote resources")
}

type checkOptions struct {
	treeOptions
	output, failOn          string
	baseline, writeBaseline string
	changedSince            string
	noProgress              bool
}

// errFindings ends the program with exit code 1: what it says has been said.
var errFindings = errors.New("findings")

func newCheck() *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:   "check [PATH]",
		Short: "Check a Git tree as the gate would",
		Long: "Render a Git tree as Flux would and put every object to the gate's rules and policy. PATH is the root of the tree (default: .), a directory or\n" +
			"file of plain manifests, or - for manifests on standard input. Nothing is written.\n\n" +
			"Exit code 0: nothing to refuse. 1: findings at or above --fail-on, or a tree that Flux could not apply. 2: the check could not run.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := "."
			if len(args) == 1 {
				path = args[0]
			}
			silenceKustomize()
			return runCheck(c.Context(), o, path, c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.addTo(c)
	f := c.Flags()
	f.StringVarP(&o.output, "output", "o", "text", "text, json, sarif, junit, github or html")
	f.StringVar(&o.failOn, "fail-on", "deny", "deny, warn or never: from which action on findings make the exit code 1")
	f.StringVar(&o.baseline, "baseline", "", "file with findings that do not count, as --write-baseline makes it")
	f.StringVar(&o.writeBaseline, "write-baseline", "", "write the findings to this file as a baseline, keeping the reasons of the one that is there")
	f.StringVar(&o.changedSince, "changed-since", "", "a Git revision: only findings in files that have changed since, and those that were not there then")
	f.BoolVar(&o.noProgress, "no-progress", false, "show no progress bar on a terminal")
	return c
}

func (o *checkOptions) validate() error {
	format := report.Format(o.output)
	known := false
	for _, f := range report.Formats() {
		known = known || f == format
	}
	if !known {
		return fmt.Errorf("--output %q is not a format: use text, json, sarif, junit, github or html", o.output)
	}
	if o.failOn != "deny" && o.failOn != "warn" && o.failOn != "never" {
		return fmt.Errorf("--fail-on %q: use deny, warn or never", o.failOn)
	}
	return nil
}

func runCheck(ctx context.Context, o checkOptions, path string, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := o.validate(); err != nil {
		return err
	}
	if o.changedSince != "" && path == "-" {
		return errors.New("--changed-since needs a Git work tree, not standard input")
	}
	old, err := readBaseline(o.baseline)
	if err != nil {
		return err
	}
	bar := newProgress(stderr, o.noProgress)
	defer bar.end()
	t, err := openTree(ctx, o.treeOptions, path, stdin)
	if err != nil {
		return err
	}
	defer t.close()
	result, err := t.check(ctx, check.Options{Progress: bar.report})
	if err != nil {
		return err
	}
	if o.changedSince != "" {
		if err := limitToChange(ctx, o.treeOptions, path, o.changedSince, result); err != nil {
			return fmt.Errorf("--changed-since: %w", err)
		}
	}
	bar.end()
	if o.writeBaseline != "" {
		return writeBaseline(o.writeBaseline, old, result, stderr)
	}
	if old != nil {
		result.Summary.StaleBaseline = len(old.Apply(result.Findings))
		result.Normalize()
	}
	result.Tool = report.Tool{Name: "flux-admission", Version: versionString()}
	opts := report.Options{DocsURL: docsURL, PathPrefix: prefix(path)}
	if f, ok := stdout.(*os.File); ok {
		opts.Color = report.ColorWanted(f, os.Getenv)
	}
	if err := report.Write(stdout, report.Format(o.output), result, opts); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	s := result.Summary
	if o.failOn != "never" && (s.Deny > 0 || s.Errors > 0) || o.failOn == "warn" && s.Warn > 0 {
		return runError{errFindings}
	}
	return nil
}

// docsURL is where the rules' pages are.
const docsURL = "https://github.com/flux-admission/flux-admission/blob/main/docs/rules/"

// prefix returns what leads from the working directory, which is the root of the repository where annotations are made, to the files of a tree; empty for
// the directory itself, and for what is not below it.
func prefix(path string) string {
	if !filepath.IsLocal(path) {
		return ""
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return ""
	}
	if path = filepath.ToSlash(filepath.Clean(path)); path == "." {
		return ""
	}
	return path + "/"
}

// checkPolicy binds the policy to check by: the file's, the tree's own, or the one that ships. By the last, the rule on namespaces only warns, folded into
// one finding: most repositories are laid out otherwise on purpose.
func checkPolicy(path string, rendered *kustomization.Result) (bound *policy.Policy, fold string, err error) {
	rules, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		return nil, "", fmt.Errorf("building the suite of rules: %w", err)
	}
	mutations, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		return nil, "", fmt.Errorf("building the set of mutators: %w", err)
	}
	var parsed *v1alpha1.AdmissionPolicy
	switch own := policyIn(rendered); {
	case path != "":
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, "", fmt.Errorf("--policy: %w", err)
		}
		if parsed, err = policy.Parse(path, data); err != nil {
			return nil, "", err
		}
	case own != nil:
		data, err := own.MarshalJSON()
		if err != nil {
			return nil, "", fmt.Errorf("reading the tree's AdmissionPolicy: %w", err)
		}
		if parsed, err = policy.ParseObject(data); err != nil {
			return nil, "", fmt.Errorf("%s: %w", own.Origin.File, err)
		}
	default:
		if parsed, err = policy.Default(); err != nil {
			return nil, "", err
		}
		fold = "kustomization-namespace"
		parsed.Spec.Rules[fold] = apiextensionsv1.JSON{Raw: []byte(`{"action": "Warn"}`)}
		// At the door this only warns, because of the order of an apply; in a tree everything is there at once.
		for _, rule := range []string{
			"kustomization-dependency-missing", "source-missing", "helm-dependency-missing", "kustomization-dependency-cycle", "helm-dependency-cycle",
		} {
			parsed.Spec.Rules[rule] = apiextensionsv1.JSON{Raw: []byte(`{"action": "Deny"}`)}
		}
	}
	bound, err = policy.Compile(parsed, rules, mutations, nil)
	return bound, fold, err
}

// policyIn returns the AdmissionPolicy that the tree applies; nil when it applies none.
func policyIn(rendered *kustomization.Result) *kustomization.Object {
	for _, c := range rendered.Clusters {
		for _, o := range c.Objects {
			if gvk := o.GroupVersionKind(); gvk.Group == v1alpha1.GroupVersion.Group && gvk.Kind == v1alpha1.Kind && o.GetName() == v1alpha1.Name {
				return o
			}
		}
	}
	return nil
}
