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

	"github.com/spf13/cobra"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/check/progress"
	"github.com/flux-admission/flux-admission/internal/check/revision"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/internal/rulecatalog"
)

// addInputFlags adds the flags that check and fix share.
func addInputFlags(c *cobra.Command, in *check.Input) {
	f := c.Flags()
	f.StringArrayVar(&in.EntryPoints, "entrypoint", nil,
		"directory of a Flux entry point, relative to PATH; may be repeated (default: all that are found)")
	f.StringArrayVar(&in.Charts, "charts", nil, "directory with Helm charts and chart archives; may be repeated")
	addChartFlags(c, &in.FetchCharts, &in.ChartCache, &in.RegistryConfig, &in.SchemaHosts)
	f.StringArrayVar(&in.CRDs, "crds", nil,
		"file or directory with CustomResourceDefinitions that the tree does not apply; may be repeated")
	f.StringArrayVar(&in.SchemaLocations, "schema-location", nil,
		"directory or URL of JSON schemas of kinds that neither the tree nor --crds define, with the variables "+
			"that kubeconform has; may be repeated; a URL is fetched")
	f.StringArrayVar(&in.Variables, "var", nil,
		"NAME=VALUE of a variable that is not in Git; may be repeated; takes precedence over --vars-file")
	f.StringArrayVar(&in.VariablesFiles, "vars-file", nil,
		"file with variables that are not in Git: NAME=VALUE lines, or a map in YAML or JSON; may be repeated")
	f.StringArrayVar(&in.Sources, "source", nil,
		"NAME=DIR, the directory with the content of another source; may be repeated")
	f.StringVar(&in.Policy, "policy", "",
		"file with the AdmissionPolicy of all clusters (default: that which each cluster applies, or else the default policy)")
	f.StringVar(&in.Cluster, "cluster", "",
		"the only cluster to evaluate: the directory of its entry point, or the end of it (default: all)")
	f.BoolVar(&in.AllowRemoteBases, "allow-remote-bases", false,
		"let kustomizations fetch remote resources (default false)")
}

// addChartFlags adds the flags about the network of the commands that read charts.
func addChartFlags(c *cobra.Command, fetch *bool, cache, registryConfig *string, schemaHosts *[]string) {
	f := c.Flags()
	f.BoolVar(fetch, "fetch-charts", false,
		"fetch charts that no --charts directory has from their repositories (default false)")
	f.StringVar(cache, "chart-cache", "",
		"directory that keeps fetched charts for the next run, at most 1 GiB, and that several runs may share; none for "+
			"no cache (default: flux-admission/charts in the user's cache directory, if it can be written)")
	f.StringVar(registryConfig, "registry-config", "",
		"file with logins for registries, for sources without a Secret that can be read (default: Docker's); those for "+
			"Helm repositories are Helm's own")
	f.StringArrayVar(schemaHosts, "schema-host", nil,
		"host that a $ref in a chart's values schema may refer to, and that it is fetched from; may be repeated (default: none)")
}

type checkOptions struct {
	check.Options
	reportOptions
}

// reportOptions are how check and audit report.
type reportOptions struct {
	output, failOn string
	reports        []string
	noProgress     bool
}

// errFindings ends the program with exit code 1 without a further message.
var errFindings = errors.New("findings")

func newCheck() *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:   "check [PATH]",
		Short: "Check a Git tree as the admission webhook would",
		Long: "Build a Git tree as Flux would and evaluate every object with the rules and\n" +
			"the policy of the admission webhook. PATH is the root of the tree (default: .),\n" +
			"a directory or file of plain manifests, or - for manifests on standard input.\n" +
			"No file is written, except for the one of --write-baseline.\n\n" +
			"A comment in a YAML file ignores findings of rules on a field, an object or, with\n" +
			"ignore-file, a whole file. The reason is required:\n\n" +
			"  # flux-admission: ignore RULE[,RULE] REASON\n\n" +
			"Exit code 0: nothing would be denied. 1: there are findings at or above\n" +
			"--fail-on, or Flux could not apply the tree. 2: the check could not run.",
		Example: "  flux-admission check                      # the tree in this directory\n" +
			"  flux-admission check --fetch-charts --fail-on unknown\n" +
			"  flux-admission check --report sarif=results.sarif --report markdown=comment.md\n" +
			"  flux-admission check --skip KS001 --warn helm-values-unknown-key\n" +
			"  kustomize build apps | flux-admission check -",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Path, o.Stdin = pathOf(args), c.InOrStdin()
			if err := applyConfig(c, o.Path); err != nil {
				return err
			}
			return withoutWarnings(func() error { return runCheck(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr()) })
		},
	}
	addInputFlags(c, &o.Input)
	addConfigFlag(c)
	f := c.Flags()
	addReportFlags(c, &o.reportOptions)
	addRuleFlags(c, &o.Flags)
	f.StringVar(&o.Baseline, "baseline", "",
		"file with findings that do not count, written by --write-baseline (default: none)")
	f.StringVar(&o.WriteBaseline, "write-baseline", "",
		"file to write the findings to as a baseline; the reasons in an existing one are kept (default: none)")
	f.StringVar(&o.ChangedSince, "changed-since", "",
		"Git revision, such as origin/main; report only new findings, and those in files changed since the merge base with it (default: report all)")
	return c
}

// addReportFlags adds the flags of check and audit that are about their reports.
func addReportFlags(c *cobra.Command, o *reportOptions) {
	f := c.Flags()
	f.StringVarP(&o.output, "output", "o", "text", "format of the report: "+formats())
	f.StringVar(&o.failOn, "fail-on", "deny",
		"what makes the exit code 1: deny, warn (and deny), unknown (deny, and evaluations that were "+
			"inconclusive) or never")
	f.StringArrayVar(&o.reports, "report", nil,
		"FORMAT=FILE, a further report; may be repeated (default: none)")
	f.BoolVar(&o.noProgress, "no-progress", false, "show no progress bar on a terminal (default false)")
}

// addRuleFlags adds the flags of check and audit that set actions of rules.
func addRuleFlags(c *cobra.Command, flags *policy.Flags) {
	f := c.Flags()
	f.StringSliceVar(&flags.Only, "only", nil, "rules to evaluate, by name or ID; may be repeated (default: all)")
	f.StringSliceVar(&flags.Skip, "skip", nil, "rules not to evaluate, by name or ID; may be repeated (default: none)")
	f.StringSliceVar(&flags.Deny, "deny", nil,
		"rules whose findings have the action Deny, by name or ID; may be repeated (default: as the policy has it)")
	f.StringSliceVar(&flags.Warn, "warn", nil,
		"rules whose findings have the action Warn, by name or ID; may be repeated (default: as the policy has it)")
}

// pathOf returns the optional argument of check and fix.
func pathOf(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return "."
}

// formats lists the formats of a report for people.
func formats() string {
	var names []string
	for _, f := range report.Formats() {
		names = append(names, string(f))
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

func (o *reportOptions) validate() error {
	if !slices.Contains(report.Formats(), report.Format(o.output)) {
		return fmt.Errorf("--output %q is not a format: use %s", o.output, formats())
	}
	if !slices.Contains([]string{"deny", "warn", "unknown", "never"}, o.failOn) {
		return fmt.Errorf("--fail-on %q: use deny, warn, unknown or never", o.failOn)
	}
	for _, r := range o.reports {
		format, file, ok := strings.Cut(r, "=")
		if !ok || file == "" || !slices.Contains(report.Formats(), report.Format(format)) {
			return fmt.Errorf("--report %q: use FORMAT=FILE with the format %s", r, formats())
		}
	}
	return nil
}

// resolveRules replaces the names of rules in the flags by their IDs.
func resolveRules(f *policy.Flags) error {
	for flag, rules := range map[string]*[]string{"only": &f.Only, "skip": &f.Skip, "deny": &f.Deny, "warn": &f.Warn} {
		ids, err := rulecatalog.IDs(*rules)
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		*rules = ids
	}
	return nil
}

func runCheck(ctx context.Context, o checkOptions, stdout, stderr io.Writer) error {
	if err := o.validate(); err != nil {
		return err
	}
	if err := resolveRules(&o.Flags); err != nil {
		return err
	}
	bar := progress.New(stderr, o.noProgress)
	defer bar.End()
	o.Progress, o.Built, o.Warning = bar.Report, bar.Built, warnTo(stderr)
	result, err := check.Run(ctx, o.Options)
	if err != nil {
		return err
	}
	bar.End()
	if o.WriteBaseline != "" {
		_, err := fmt.Fprintf(stderr, "wrote %s to %s\n", plural(result.Summary.Findings, "finding"), o.WriteBaseline)
		return err
	}
	if o.output == string(report.HTML) || slices.ContainsFunc(o.reports, func(r string) bool { return strings.HasPrefix(r, string(report.HTML)+"=") }) {
		result.Tree = nameOfTree(ctx, o.Path)
	}
	prefix := pathPrefix(o.Path)
	opts := report.Options{PathPrefix: prefix, Category: prefix + o.Cluster}
	s := result.Summary
	nothing := s.Nothing() && !failed(o.failOn, s)
	if nothing && s.Skipped == 0 && report.Format(o.output) == report.Text {
		stdout = io.Discard // the error is all that people need
	}
	if err := o.write(result, stdout, opts); err != nil {
		return err
	}
	if nothing {
		return errNothingChecked(o.Path)
	}
	return o.verdict(s)
}

// nameOfTree returns the name of the directory at a path, with the commit that is checked out if it is in a Git work tree; empty for standard input.
func nameOfTree(ctx context.Context, path string) string {
	abs, err := filepath.Abs(path)
	if err != nil || path == check.StandardInput {
		return ""
	}
	name := filepath.Base(abs)
	if commit, err := revision.Resolve(ctx, path, "HEAD"); err == nil {
		const short = 10
		name += " at " + commit[:short]
	}
	return name
}

// warnTo returns a function that writes each warning once.
func warnTo(stderr io.Writer) func(text string) {
	written := map[string]bool{}
	return func(text string) {
		if !written[text] {
			written[text] = true
			fmt.Fprintln(stderr, "flux-admission: warning:", text)
		}
	}
}

// loadWithBar loads a tree, with a progress bar on a terminal.
func loadWithBar(ctx context.Context, in check.Input, stderr io.Writer) (*check.Tree, error) {
	bar := progress.New(stderr, false)
	defer bar.End()
	in.Built, in.Warning = bar.Built, warnTo(stderr)
	return check.Load(ctx, in)
}

// write writes all reports. The options are those of the command; how the output is written is added to them.
func (o *reportOptions) write(result *report.Report, stdout io.Writer, opts report.Options) error {
	result.Tool = report.Tool{Name: "flux-admission", Version: versionString()}
	opts.DocsURL = docsURL
	if f, ok := stdout.(*os.File); ok {
		opts.Color = report.ColorWanted(f, os.Getenv)
	}
	if err := report.Write(stdout, report.Format(o.output), result, opts); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return o.writeReports(result, opts)
}

// verdict returns errFindings if there are findings at or above --fail-on.
func (o *reportOptions) verdict(s report.Summary) error {
	if failed(o.failOn, s) {
		return runError{errFindings}
	}
	return nil
}

// errNothingChecked returns the error of a check that found no object: it is no reason to pass.
func errNothingChecked(path string) error {
	if path == check.StandardInput {
		return errors.New("standard input holds no Kubernetes object, so nothing was checked")
	}
	return fmt.Errorf("no Kubernetes object was found in %s, so nothing was checked; looked for .yaml, .yml and .json files with apiVersion and kind "+
		"that a Kustomization applies, or that are below a directory without one: give the root of the Git tree, or --entrypoint DIR", path)
}

// failed reports whether the summary makes the exit code 1.
func failed(failOn string, s report.Summary) bool {
	switch {
	case failOn == "never":
		return false
	case s.Deny > 0 || s.Errors > 0:
		return true
	}
	return failOn == "warn" && s.Warn > 0 || failOn == "unknown" && s.Unknown > 0
}

// writeReports writes the further reports: the files of --report, and in a step of GitHub Actions its summary.
func (o *reportOptions) writeReports(result *report.Report, opts report.Options) (err error) {
	opts.Color = false
	write := func(format report.Format, file string, flags int) (err error) {
		f, err := os.OpenFile(file, flags|os.O_WRONLY|os.O_CREATE, 0o644) //nolint:gosec // a report is for everybody who sees the job
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		return report.Write(f, format, result, opts)
	}
	for _, r := range o.reports {
		format, file, _ := strings.Cut(r, "=")
		if err := write(report.Format(format), file, os.O_TRUNC); err != nil {
			return fmt.Errorf("--report %s: %w", r, err)
		}
	}
	if summary := os.Getenv("GITHUB_STEP_SUMMARY"); summary != "" && report.Format(o.output) == report.GitHub {
		if err := write(report.Markdown, summary, os.O_APPEND); err != nil {
			return fmt.Errorf("writing the summary of the step: %w", err)
		}
	}
	return nil
}

// docsURL is where the rules' pages are.
const docsURL = "https://github.com/flux-admission/flux-admission/blob/main/docs/rules/"

// pathPrefix returns the path from the working directory to a tree below it, with a final slash. Annotations are
// relative to the root of the repository, which is the working directory in CI. It is empty for the working directory
// itself and for anything that is not a directory below it.
func pathPrefix(path string) string {
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

// withoutWarnings runs a function that builds kustomizations, with os.Stderr discarded. kustomize prints a warning for
// each deprecated field of each build straight to os.Stderr, with no option to change that; reports have their own
// findings for such fields. The program's own messages go to the writer that the command got at its start. Nothing else
// may use os.Stderr meanwhile.
func withoutWarnings(run func() error) (err error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", os.DevNull, err)
	}
	stderr := os.Stderr
	os.Stderr = null
	defer func() {
		os.Stderr = stderr
		err = errors.Join(err, null.Close())
	}()
	return run()
}
