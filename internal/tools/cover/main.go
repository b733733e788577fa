// Command cover prints statement and branch coverage per package, and the least covered files, from a profile that
// `go test -covermode count` wrote.
//
//	cover [--least N] PROFILE
//
// Go's profile counts how often each basic block ran. A branch is an arm of an if (with the implicit else), a switch
// (with the implicit default) or a select. The count of an implicit arm is the count of the statement minus those of
// its other arms. Operands of && and || are not told apart, and a fallthrough counts for both of its cases.
package main

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/cover"
)

func main() {
	least := flag.Int("least", 10, "print the `N` files with the lowest statement coverage")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: cover [--least N] PROFILE")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Stdout, flag.Arg(0), *least); err != nil {
		fmt.Fprintf(os.Stderr, "cover: %v\n", err)
		os.Exit(1)
	}
}

// coverage counts statements and branches, and how many of them ran.
type coverage struct {
	statements, statementsRun int
	branches, branchesRun     int
}

func (c *coverage) add(other coverage) {
	c.statements += other.statements
	c.statementsRun += other.statementsRun
	c.branches += other.branches
	c.branchesRun += other.branchesRun
}

// run writes the report on the profile at name, whose files lie in the module of the working directory.
func run(ctx context.Context, w io.Writer, name string, least int) error {
	module, err := exec.CommandContext(ctx, "go", "list", "-m").Output()
	if err != nil {
		return fmt.Errorf("finding the module: go list -m: %w", err)
	}
	prefix := string(bytes.TrimSpace(module)) + "/"
	profiles, err := cover.ParseProfiles(name)
	if err != nil {
		return fmt.Errorf("reading the profile: %w", err)
	}
	packages, files := map[string]*coverage{}, map[string]coverage{}
	for _, p := range profiles {
		if p.Mode == "set" {
			return fmt.Errorf("the profile has mode %q: write it with -covermode count", p.Mode)
		}
		file := strings.TrimPrefix(p.FileName, prefix)
		text, err := os.ReadFile(filepath.FromSlash(file))
		if err != nil {
			return fmt.Errorf("reading a file of the profile: %w", err)
		}
		covered, err := measure(file, text, p.Blocks)
		if err != nil {
			return err
		}
		files[file] = covered
		dir := path.Dir(file)
		if packages[dir] == nil {
			packages[dir] = &coverage{}
		}
		packages[dir].add(covered)
	}
	return write(w, packages, files, least)
}

// measure returns the coverage of one file.
func measure(name string, text []byte, blocks []cover.ProfileBlock) (coverage, error) {
	var c coverage
	for _, b := range blocks {
		c.statements += b.NumStmt
		if b.Count > 0 {
			c.statementsRun += b.NumStmt
		}
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
	if err != nil {
		return c, err
	}
	counts := counter{fset: fset, blocks: blocks}
	ast.Inspect(parsed, func(n ast.Node) bool {
		for _, count := range counts.arms(n) {
			c.branches++
			if count > 0 {
				c.branchesRun++
			}
		}
		return true
	})
	return c, nil
}

// A counter finds how often the code at a position ran.
type counter struct {
	fset   *token.FileSet
	blocks []cover.ProfileBlock
}

// arms returns how often each arm of a statement ran; nil for a node that has none.
func (c counter) arms(n ast.Node) []int {
	switch n := n.(type) {
	case *ast.IfStmt:
		body := c.at(n.Body.Lbrace + 1)
		if n.Else != nil {
			return []int{body, c.at(n.Else.Pos() + 1)}
		}
		return []int{body, c.at(n.If) - body}
	case *ast.SwitchStmt:
		return c.clauses(n.Body, c.at(n.Switch))
	case *ast.TypeSwitchStmt:
		return c.clauses(n.Body, c.at(n.Switch))
	case *ast.SelectStmt:
		return c.clauses(n.Body, -1)
	}
	return nil
}

// clauses returns how often each clause of a statement that ran total times ran, with its implicit default. With a
// negative total there is no implicit default.
func (c counter) clauses(body *ast.BlockStmt, total int) []int {
	var out []int
	implicit := total >= 0
	for _, clause := range body.List {
		count := 0
		switch clause := clause.(type) {
		case *ast.CaseClause:
			count = c.at(clause.Colon + 1)
			implicit = implicit && clause.List != nil
		case *ast.CommClause:
			count = c.at(clause.Colon + 1)
		}
		out = append(out, count)
		total -= count
	}
	if implicit {
		out = append(out, total)
	}
	return out
}

// at returns how often the last block that begins at or before a position and contains it ran.
func (c counter) at(pos token.Pos) int {
	at := c.fset.Position(pos)
	count := 0
	for _, b := range c.blocks {
		if before(at.Line, at.Column, b.StartLine, b.StartCol) {
			break
		}
		if !before(b.EndLine, b.EndCol, at.Line, at.Column) {
			count = b.Count
		}
	}
	return count
}

func before(line, column, otherLine, otherColumn int) bool {
	return line < otherLine || line == otherLine && column < otherColumn
}

// write writes one line for each package, the total and the least covered files.
func write(w io.Writer, packages map[string]*coverage, files map[string]coverage, least int) error {
	lines := []string{"statements  branches  package"}
	var total coverage
	for _, name := range sortedKeys(packages) {
		total.add(*packages[name])
		lines = append(lines, line(*packages[name], name))
	}
	lines = append(lines, line(total, "total"), "", "the least covered files:")
	names := sortedKeys(files)
	names = slices.DeleteFunc(names, func(name string) bool { return files[name].statements == 0 })
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(share(files[a].statementsRun, files[a].statements), share(files[b].statementsRun, files[b].statements))
	})
	for _, name := range names[:min(least, len(names))] {
		lines = append(lines, line(files[name], name))
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}

func line(c coverage, name string) string {
	branches := "       -"
	if c.branches > 0 {
		branches = fmt.Sprintf("%7.1f%%", share(c.branchesRun, c.branches))
	}
	return fmt.Sprintf("%9.1f%%  %s  %s", share(c.statementsRun, c.statements), branches, name)
}

// share returns a part of a total in percent.
func share(part, total int) float64 {
	if total == 0 {
		return 100
	}
	return 100 * float64(part) / float64(total)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
