package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
)

// tree is a rendered tree with all that it is checked by.
type tree struct {
	rendered *kustomization.Result
	policy   *policy.Policy
	fold     string
	charts   lookup.Charts
	crds     []check.Definition
	close    func()
}

// fetchBudget bounds how long one release waits for its chart with --fetch-charts.
const fetchBudget = time.Minute

// openTree renders what is at path and prepares what it is checked by.
func openTree(ctx context.Context, o treeOptions, path string, stdin io.Reader) (*tree, error) {
	t := &tree{close: func() {}}
	var err error
	if t.crds, err = readCRDs(o.crds); err != nil {
		return nil, err
	}
	again, err := t.render(ctx, o, path, stdin)
	if err != nil {
		return nil, err
	}
	if t.policy, t.fold, err = checkPolicy(o.policy, t.rendered); err != nil {
		return nil, err
	}
	amendments, err := check.Amend(ctx, t.rendered, t.policy)
	if err != nil {
		return nil, err
	}
	if len(amendments) > 0 {
		if err := again(amendments); err != nil {
			return nil, err
		}
	}
	return t, t.openCharts(o)
}

func (t *tree) openCharts(o treeOptions) error {
	options := chartsource.Options{Dirs: o.charts, Templates: true}
	if o.fetchCharts {
		options.Wait = fetchBudget
	}
	if len(o.charts) == 0 && !o.fetchCharts {
		t.charts = noCharts{}
		return nil
	}
	r, err := chartsource.New(options)
	if err != nil {
		return fmt.Errorf("--charts: %w", err)
	}
	t.close = r.Close
	t.charts = localCharts{r}
	if o.fetchCharts {
		t.charts = r
	}
	return nil
}

// check evaluates the tree; policy, charts and definitions of the options are the tree's own.
func (t *tree) check(ctx context.Context, o check.Options) (*report.Report, error) {
	o.Policy, o.Charts, o.CRDs, o.FoldRule = t.policy, t.charts, t.crds, t.fold
	return check.Run(ctx, t.rendered, o)
}

// render renders what is at path. The function that it returns renders it anew with amendments.
func (t *tree) render(ctx context.Context, o treeOptions, path string, stdin io.Reader) (again func(check.Amendments) error, err error) {
	vars, err := variables(o)
	if err != nil {
		return nil, err
	}
	sources, err := pairs("--source", o.sources)
	if err != nil {
		return nil, err
	}
	plain := func(check.Amendments) error { return nil }
	if path == "-" {
		data, err := io.ReadAll(io.LimitReader(stdin, maxStdin+1))
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		if len(data) > maxStdin {
			return nil, fmt.Errorf("standard input is larger than %d bytes", maxStdin)
		}
		t.rendered = kustomization.Stream(data, "stdin", kustomization.Limits{})
		return plain, nil
	}
	options := kustomization.Options{Root: path, EntryPoints: o.entryPoints, Vars: vars, Sources: sources, AllowRemoteBases: o.allowRemoteBases}
	t.rendered, err = kustomization.Tree(ctx, options)
	if errors.Is(err, kustomization.ErrNoEntryPoint) {
		t.rendered, err = kustomization.Manifests(ctx, path, kustomization.Limits{})
		return plain, err
	}
	return func(a check.Amendments) error {
		options.Amend = a.Of
		t.rendered, err = kustomization.Tree(ctx, options)
		return err
	}, err
}

func pairs(flag string, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range list {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s %q: want NAME=VALUE", flag, p)
		}
		out[name] = value
	}
	return out, nil
}

// variables are those of --var and --vars-file.
func variables(o treeOptions) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range o.varsFiles {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("--vars-file: %w", err)
		}
		if err := readVars(name, data, out); err != nil {
			return nil, fmt.Errorf("--vars-file: %w", err)
		}
	}
	given, err := pairs("--var", o.vars)
	maps.Copy(out, given)
	return out, err
}

// readVars adds the variables of one file: a YAML map of scalars when its name says so, else NAME=VALUE lines with # comments.
func readVars(name string, data []byte, out map[string]string) error {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		values := map[string]any{}
		if err := yaml.UnmarshalStrict(data, &values); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for k, v := range values {
			switch v.(type) {
			case map[string]any, []any:
				return fmt.Errorf("%s: %s is no scalar: write NAME: VALUE, one for each variable", name, k)
			case nil:
				v = ""
			}
			out[k] = fmt.Sprint(v)
		}
		return nil
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines.Text()), "export "))
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || key == "" {
			return fmt.Errorf("%s:%d: want NAME=VALUE", name, n) // the line may hold a secret, and is not quoted
		}
		if unquoted := strings.Trim(value, `"'`); len(unquoted) == len(value)-2 {
			value = unquoted
		}
		out[key] = value
	}
	return lines.Err()
}

// readCRDs reads the CustomResourceDefinitions of files and of all YAML and JSON files below directories.
func readCRDs(paths []string) ([]check.Definition, error) {
	var out []check.Definition
	for _, root := range paths {
		before := len(out)
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			ext := filepath.Ext(name)
			if !d.Type().IsRegular() || name != root && ext != ".yaml" && ext != ".yml" && ext != ".json" {
				return nil
			}
			list, err := definitions(name)
			out = append(out, list...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("--crds: %w", err)
		}
		if len(out) == before {
			return nil, fmt.Errorf("--crds: there is no CustomResourceDefinition in %s", root)
		}
	}
	return out, nil
}

func definitions(name string) ([]check.Definition, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var out []check.Definition
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		content := map[string]any{}
		if err := yaml.Unmarshal(doc, &content); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		o := &unstructured.Unstructured{Object: content}
		if o.GroupVersionKind().GroupKind() == kindschema.CustomResourceDefinition {
			out = append(out, check.Definition{Origin: name, Object: o})
		}
	}
}

// localCharts finds charts in directories only: a check does not go to the network unless it is told to.
type localCharts struct{ *chartsource.Resolver }

// Resolve implements lookup.Charts.
func (l localCharts) Resolve(ctx context.Context, objects validators.Lookup, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	chart, err := l.Local(ctx, objects, ref)
	if err != nil {
		return nil, validators.Unknown, err
	}
	if chart == nil {
		return nil, validators.Unknown, notGiven(ref)
	}
	return chart, validators.Present, nil
}

// noCharts has no chart.
type noCharts struct{}

// Resolve implements lookup.Charts.
func (noCharts) Resolve(_ context.Context, _ validators.Lookup, ref validators.ChartRef) (validators.Chart, validators.Presence, error) {
	return nil, validators.Unknown, notGiven(ref)
}

func notGiven(ref validators.ChartRef) error {
	name := strings.TrimSpace(ref.Chart + " " + ref.Version)
	if name == "" {
		name = ref.Source.Kind + " " + ref.Source.Namespace + "/" + ref.Source.Name
	}
	return &validators.MissingInput{What: check.ChartNotGiven, Name: name, Text: "chart " + name + " is in none of the --charts directories"}
}
