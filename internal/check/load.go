package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/chartinput"
	"github.com/flux-admission/flux-admission/internal/check/variables"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
)

// StandardInput is the path of manifests that are read from Input.Stdin.
const StandardInput = "-"

// maxStdin bounds what is read from standard input, in bytes.
const maxStdin = 256 << 20

// Input is what is checked, and with which charts, definitions, variables and policy. Errors about a field name the
// command's flag for it.
type Input struct {
	// Path is the root of a Git tree, a directory or file of plain manifests, or StandardInput.
	Path string
	// Stdin is read for StandardInput.
	Stdin io.Reader
	// EntryPoints are the directories of Flux entry points, relative to Path; they are found if there are none.
	EntryPoints []string
	// Charts are directories with Helm charts and chart archives.
	Charts []string
	// FetchCharts fetches charts that are in none of these directories from their repositories.
	FetchCharts bool
	// ChartCache is the directory that keeps fetched charts for the next run; chartinput.NoCache for none, empty for one in the user's cache directory
	// if that can be written.
	ChartCache string
	// RegistryConfig is the file with logins for registries, as docker login writes it; empty for Docker's own.
	RegistryConfig string
	// SchemaHosts are hosts that charts' values schemas may refer to; what is there is fetched.
	SchemaHosts []string
	// CRDs are files and directories with CustomResourceDefinitions that the tree does not apply.
	CRDs []string
	// SchemaLocations are locations of JSON schemas of kinds that neither the tree nor CRDs define, in kubeconform's form.
	SchemaLocations []string
	// Variables are NAME=VALUE pairs that take precedence over those of VariablesFiles.
	Variables, VariablesFiles []string
	// Sources are NAME=DIR pairs: the directories with the content of other sources.
	Sources []string
	// Policy is the file with the AdmissionPolicy of all clusters; default: that which each cluster applies, or the default policy.
	Policy string
	// Cluster is the name of the only cluster to evaluate: the directory of its entry point, or the end of it. Empty for all clusters.
	Cluster string
	// ClusterOptional lets a tree without that cluster be loaded, as one with nothing to evaluate; see CheckCluster.
	ClusterOptional bool
	// Flags set actions of rules, whatever the policy has.
	policy.Flags
	// AllowRemoteBases lets kustomizations fetch remote resources.
	AllowRemoteBases bool
	// Built is called from several goroutines while Kustomizations are built, with the numbers of those that are built and that are
	// known so far; nil for nobody.
	Built func(built, known int)
	// Warning is called with a warning about the input, which changes no finding; nil for nobody.
	Warning func(text string)
}

// Tree is a built tree with the policy, charts and definitions to evaluate it with.
type Tree struct {
	// Built is what Flux would apply, with the policy's mutations.
	Built *kustomization.Result

	input       Input
	actions     map[string]v1alpha1.Action
	charts      *chartinput.Charts
	treeCharts  map[*kustomization.Cluster]*treeCharts
	definitions []Definition
	schemas     *schemas
	// policies are those of the clusters, by name.
	policies map[string]*clusterPolicy
	close    func()
}

// Load builds the tree, chooses the policy and applies the policy's mutations. The caller must close the tree.
func Load(ctx context.Context, in Input) (_ *Tree, err error) {
	t := &Tree{input: in, close: func() {}}
	if t.actions, err = in.Actions(allRules()); err != nil {
		return nil, err
	}
	if t.definitions, err = readDefinitions(in.CRDs); err != nil {
		return nil, err
	}
	if t.schemas, err = openSchemas(in.SchemaLocations); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			t.schemas.close()
		}
	}()
	t.charts, t.close, err = chartinput.Open(chartinput.Options{
		Dirs: in.Charts, Fetch: in.FetchCharts, Cache: in.ChartCache, RegistryConfig: in.RegistryConfig, SchemaHosts: in.SchemaHosts,
		Templates: true, Warn: in.Warning,
	})
	if err != nil {
		return nil, err
	}
	if err := t.load(ctx, nil); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// load builds the tree, with the texts of edited files, chooses the policy and applies the policy's mutations.
func (t *Tree) load(ctx context.Context, edited map[string][]byte) error {
	rebuild, err := t.build(ctx, edited)
	if err != nil {
		return err
	}
	if t.policies, err = choosePolicies(t.input, t.actions, t.Built); err != nil {
		return err
	}
	if err := t.CheckCluster(); err != nil && !(t.input.ClusterOptional && errors.Is(err, errNoCluster)) {
		return err
	}
	mutated, err := mutate(ctx, t.Built, t.policies)
	if err != nil || len(mutated) == 0 {
		return err
	}
	return rebuild(mutated)
}

// Close releases the charts that were read.
func (t *Tree) Close() {
	t.close()
	t.schemas.close()
}

// Clusters returns the clusters to evaluate: those that the input selects.
func (t *Tree) Clusters() []*kustomization.Cluster {
	if t.input.Cluster == "" {
		return t.Built.Clusters
	}
	return slices.DeleteFunc(slices.Clone(t.Built.Clusters), func(c *kustomization.Cluster) bool { return !t.isSelected(c) })
}

// isSelected reports whether a cluster is evaluated: it has the name of Input.Cluster, or its directory ends so.
func (t *Tree) isSelected(c *kustomization.Cluster) bool {
	name := strings.Trim(path.Clean(t.input.Cluster), "/")
	return t.input.Cluster == "" || c.Name == name || strings.HasSuffix(c.Name, "/"+name)
}

// errNoCluster is the error for a tree without the cluster to evaluate.
var errNoCluster = errors.New("there is no such cluster")

// CheckCluster returns an error if Input.Cluster is not the name of one cluster.
func (t *Tree) CheckCluster() error {
	if t.input.Cluster == "" {
		return nil
	}
	var all, selected []string
	for _, c := range t.Built.Clusters {
		if c.Entry == nil {
			continue
		}
		all = append(all, c.Name)
		if t.isSelected(c) {
			selected = append(selected, c.Name)
		}
	}
	switch {
	case len(all) == 0:
		return fmt.Errorf("--cluster %s: %w: the tree has no Flux entry point", t.input.Cluster, errNoCluster)
	case len(selected) == 0:
		return fmt.Errorf("--cluster %s: %w; the clusters are %s", t.input.Cluster, errNoCluster, strings.Join(all, ", "))
	case len(selected) > 1:
		return fmt.Errorf("--cluster %s: several clusters have this name: %s", t.input.Cluster, strings.Join(selected, ", "))
	}
	return nil
}

// build builds what is at the input's path. The function that it returns builds it again with mutated objects, which
// may change what Kustomizations build.
func (t *Tree) build(ctx context.Context, edited map[string][]byte) (rebuild func(mutations) error, err error) {
	in := t.input
	vars, err := variables.Read(in.VariablesFiles, in.Variables)
	if err != nil {
		return nil, err
	}
	sources, err := variables.Pairs(in.Sources)
	if err != nil {
		return nil, fmt.Errorf("--source %w", err)
	}
	// Plain manifests have no Kustomizations.
	plain := func(mutations) error { return nil }
	if in.Path == StandardInput {
		data, err := io.ReadAll(io.LimitReader(in.Stdin, maxStdin+1))
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		if len(data) > maxStdin {
			return nil, fmt.Errorf("standard input is larger than %d bytes", maxStdin)
		}
		t.Built = kustomization.ParseManifests(data, "stdin", sourcetree.Limits{})
		return plain, nil
	}
	needed, err := variables.Pairs(in.Variables)
	if err != nil {
		return nil, fmt.Errorf("--var %w", err)
	}
	options := kustomization.Options{
		Needed: slices.Sorted(maps.Keys(needed)),
		Root:   in.Path, EntryPoints: in.EntryPoints, Variables: vars, Sources: sources, AllowRemoteBases: in.AllowRemoteBases,
		Edited: edited, Progress: in.Built,
		Built: func(r *kustomization.Result) error { return t.readTreeCharts(ctx, r) },
	}
	if info, err := os.Stat(in.Path); err == nil && info.Mode().IsRegular() {
		t.Built, err = kustomization.ReadManifests(ctx, in.Path, sourcetree.Limits{})
		return plain, err
	}
	t.Built, err = kustomization.Build(ctx, options)
	if errors.Is(err, kustomization.ErrNoEntryPoint) {
		t.Built, err = kustomization.BuildWithoutFlux(ctx, options)
		return plain, err
	}
	return func(m mutations) (err error) {
		options.Mutate = m.of
		t.Built, err = kustomization.Build(ctx, options)
		return err
	}, err
}
