package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/check/variables"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
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
	// SchemaHosts are hosts that charts' values schemas may refer to; what is there is fetched.
	SchemaHosts []string
	// CRDs are files and directories with CustomResourceDefinitions that the tree does not apply.
	CRDs []string
	// Variables are NAME=VALUE pairs that take precedence over those of VariablesFiles.
	Variables, VariablesFiles []string
	// Sources are NAME=DIR pairs: the directories with the content of other sources.
	Sources []string
	// Policy is the file with the AdmissionPolicy; default: the tree's own, or the default policy.
	Policy string
	// Only are the IDs of the rules to evaluate; all if there are none. Skip are those of rules not to evaluate.
	Only, Skip []string
	// Deny and Warn are the IDs of rules whose findings have that action, whatever the policy has.
	Deny, Warn []string
	// AllowRemoteBases lets kustomizations fetch remote resources.
	AllowRemoteBases bool
}

// Tree is a built tree with the policy, charts and definitions to evaluate it with.
type Tree struct {
	// Built is what Flux would apply, with the policy's mutations.
	Built *kustomization.Result
	// Policy decides what is done about findings.
	Policy *policy.Policy

	input       Input
	actions     map[string]v1alpha1.Action
	charts      lookup.Charts
	definitions []Definition
	// requested are the names of the rules that the user named in a policy or in flags, as rules to evaluate.
	requested map[string]bool
	close     func()
}

// Load builds the tree, chooses the policy and applies the policy's mutations. The caller must close the tree.
func Load(ctx context.Context, in Input) (*Tree, error) {
	t := &Tree{input: in, close: func() {}}
	var err error
	if t.actions, err = actionsOf(in); err != nil {
		return nil, err
	}
	if t.definitions, err = readDefinitions(in.CRDs); err != nil {
		return nil, err
	}
	if err := t.load(ctx, nil); err != nil {
		return nil, err
	}
	if t.charts, t.close, err = openCharts(in); err != nil {
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
	if t.Policy, t.requested, err = choosePolicy(t.input.Policy, t.actions, t.Built); err != nil {
		return err
	}
	for _, m := range allRules() {
		if slices.Contains(slices.Concat(t.input.Only, t.input.Deny, t.input.Warn), m.ID) {
			t.requested[m.Name] = true
		}
	}
	mutated, err := mutate(ctx, t.Built, t.Policy)
	if err != nil || len(mutated) == 0 {
		return err
	}
	return rebuild(mutated)
}

// Close releases the charts that were read.
func (t *Tree) Close() { t.close() }

// Grouped reports whether a rule's findings are shown as one: those of a rule with a group, unless the user named the
// rule in a policy or in flags.
func (t *Tree) Grouped(rule *validators.Meta) bool {
	return rule.Group != "" && !t.requested[rule.Name]
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
	options := kustomization.Options{
		Root: in.Path, EntryPoints: in.EntryPoints, Variables: vars, Sources: sources, AllowRemoteBases: in.AllowRemoteBases,
		Edited: edited,
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
