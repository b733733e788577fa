package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/test/ruletest"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// tree is a directory to check.
type tree struct {
	// name is shown; group is its line in the table.
	name, group string
	// dir is the working directory of the check.
	dir string
	// args are those of the check command, the path last.
	args []string
}

// collector writes trees below dir.
type collector struct {
	dir, only string
	trees     []tree
}

// project collects the trees of this project's tests.
func (c *collector) project(root string) error {
	for _, pattern := range []string{
		"internal/check/testdata/*.txtar", "internal/check/testdata/*/*.txtar",
		"internal/kustomization/testdata/trees/*.txtar", "internal/kustomization/*/testdata/trees/*.txtar",
		"cmd/flux-admission/testdata/*.txtar", "cmd/flux-admission/testdata/*/*.txtar",
	} {
		names, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			return fmt.Errorf("finding trees: %w", err)
		}
		for _, name := range names {
			if err := c.archive(name); err != nil {
				return err
			}
		}
	}
	for _, rule := range allvalidators.Rules() {
		dirs, err := filepath.Glob(filepath.Join(root, "validators", "*", "testdata", strings.ToLower(rule.ID)))
		if err != nil || len(dirs) != 1 {
			return fmt.Errorf("rule %s: want one directory of cases, have %v: %w", rule.ID, dirs, err)
		}
		cases, err := ruletest.Load(dirs[0])
		if err != nil {
			return err
		}
		for _, rc := range cases {
			if err := c.ruleCase(rule, rc); err != nil {
				return fmt.Errorf("%s/%s: %w", rule.ID, rc.Name, err)
			}
		}
	}
	return nil
}

// next returns a new empty directory; false for a tree that is not wanted.
func (c *collector) next(name string) (string, bool, error) {
	if !strings.Contains(name, c.only) {
		return "", false, nil
	}
	dir, err := os.MkdirTemp(c.dir, "tree-")
	if err != nil {
		return "", false, fmt.Errorf("creating a directory for a tree: %w", err)
	}
	return dir, true, nil
}

// archive adds the tree of a txtar archive. An archive with files below before/ and after/ is two trees, to both of
// which its other files belong, and those of base.txtar beside it.
func (c *collector) archive(name string) error {
	a, err := txtar.ParseFile(name)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	sides := map[string][]txtar.File{}
	var common []txtar.File
	for _, f := range a.Files {
		side, rest, _ := strings.Cut(f.Name, "/")
		if side == "before" || side == "after" {
			sides[side] = append(sides[side], txtar.File{Name: rest, Data: f.Data})
			continue
		}
		common = append(common, f)
	}
	if len(sides) == 0 {
		return c.files(name, filepath.Dir(name), common)
	}
	base, err := txtar.ParseFile(filepath.Join(filepath.Dir(name), "base.txtar"))
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	for _, side := range slices.Sorted(maps.Keys(sides)) {
		if err := c.files(name+" "+side, filepath.Dir(name), slices.Concat(base.Files, common, sides[side])); err != nil {
			return err
		}
	}
	return nil
}

// files adds a tree of files.
func (c *collector) files(name, group string, files []txtar.File) error {
	dir, wanted, err := c.next(name)
	if err != nil || !wanted {
		return err
	}
	for _, f := range files {
		if err := ruletest.WriteFile(dir, f.Name, f.Data); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	t := tree{name: name, group: group, dir: dir}
	if exists(filepath.Join(dir, "charts")) {
		t.args = []string{"--charts", "charts"}
	}
	t.args = append(t.args, ".")
	c.trees = append(c.trees, t)
	return nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// ruleCase adds a rule's case as a tree, checked by a policy with the case's parameters where it has some.
func (c *collector) ruleCase(rule *validators.Rule, rc *ruletest.Case) error {
	if rc.NotATree() != "" {
		return nil
	}
	group := "validators/*/testdata"
	name := "validators/*/testdata/" + strings.ToLower(rule.ID) + "/" + rc.Name
	dir, wanted, err := c.next(name)
	if err != nil || !wanted {
		return err
	}
	root := filepath.Join(dir, "tree")
	sources, err := rc.WriteTree(root)
	if err != nil {
		return err
	}
	t := tree{
		name: name, group: group, dir: dir,
		args: []string{"--entrypoint", ruletest.EntryPoint, "--crds", "gadgets.yaml"},
	}
	for _, source := range sources {
		t.args = append(t.args, "--source", source+"="+root)
	}
	if len(rc.Charts) > 0 {
		for file, data := range rc.Charts {
			if err := ruletest.WriteFile(dir, "charts/"+file, data); err != nil {
				return err
			}
		}
		t.args = append(t.args, "--charts", "charts")
	}
	// A definition from outside of the tree makes check know all that is installed.
	if err := ruletest.WriteFile(dir, "gadgets.yaml", []byte(ruletest.Gadgets)); err != nil {
		return err
	}
	if rc.Params != nil {
		settings := map[string]any{}
		if err := sigsyaml.Unmarshal(rc.Params, &settings); err != nil {
			return fmt.Errorf("reading policy.yaml: %w", err)
		}
		settings["action"] = "Deny"
		data, err := json.Marshal(map[string]any{
			"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy",
			"metadata": map[string]any{"name": "default"},
			"spec":     map[string]any{"rules": map[string]any{rule.Name: settings}},
		})
		if err != nil {
			return fmt.Errorf("writing the policy: %w", err)
		}
		if err := ruletest.WriteFile(dir, "policy.yaml", data); err != nil {
			return err
		}
		t.args = append(t.args, "--policy", "policy.yaml")
	}
	t.args = append(t.args, "tree")
	c.trees = append(c.trees, t)
	return nil
}

// shared collects the trees of a directory with replay, charts and cases.
func (c *collector) shared(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("--shared: %w", err)
	}
	expectations, err := filepath.Glob(filepath.Join(dir, "cases", "*", "expect.json"))
	if err != nil {
		return fmt.Errorf("finding cases: %w", err)
	}
	for _, name := range expectations {
		if err := c.sharedCase(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return c.replay(ctx, filepath.Join(dir, "replay"), filepath.Join(dir, "charts"))
}

func (c *collector) sharedCase(expectation string) error {
	data, err := os.ReadFile(expectation)
	if err != nil {
		return err
	}
	var expect struct {
		Args []string `json:"args"`
	}
	if err := json.Unmarshal(data, &expect); err != nil {
		return err
	}
	dir := filepath.Dir(expectation)
	name := "cases/" + filepath.Base(dir)
	if strings.Contains(name, c.only) {
		c.trees = append(c.trees, tree{name: name, group: "cases", dir: dir, args: append(expect.Args, "tree")})
	}
	return nil
}

// replay adds a tree for each tag that the cases of the replay name.
func (c *collector) replay(ctx context.Context, dir, charts string) error {
	repository := filepath.Join(c.dir, "replay")
	if err := git(ctx, "clone", "-q", "--no-checkout", filepath.Join(dir, "trees.bundle"), repository); err != nil {
		return fmt.Errorf("cloning the replay: %w", err)
	}
	seen := map[string]bool{"": true}
	for _, file := range []string{"cases.jsonl", "negatives.jsonl"} {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return fmt.Errorf("reading the replay: %w", err)
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var tags struct{ Before, After, Tree string }
			if err := json.Unmarshal(lines.Bytes(), &tags); err != nil {
				return fmt.Errorf("reading %s: %w", file, err)
			}
			for _, tag := range []string{tags.Before, tags.After, tags.Tree} {
				if name := "replay/" + tag; seen[tag] || !strings.Contains(name, c.only) {
					continue
				}
				seen[tag] = true
				at := filepath.Join(c.dir, tag)
				if err := git(ctx, "-C", repository, "worktree", "add", "-q", "--force", at, tag); err != nil {
					return fmt.Errorf("checking out %s: %w", tag, err)
				}
				c.trees = append(c.trees, tree{
					name: "replay/" + tag, group: "replay", dir: at,
					args: []string{"--charts", charts, "--entrypoint", "kubernetes/flux/cluster", "."},
				})
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
	}
	return nil
}

func git(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "git", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
