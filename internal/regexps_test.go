package internal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRegexps: only internal/boundedregexp compiles regular expressions that are not constants of the program.
func TestRegexps(t *testing.T) {
	for _, root := range []string{"../api", "../cmd", "../internal", "../mutators", "../validators", "../webhook"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && slices.Contains([]string{"testdata", "tools", "boundedregexp"}, d.Name()) {
				return fs.SkipDir
			}
			if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			for _, position := range variableRegexps(t, path) {
				t.Errorf("%s: compiles a regular expression that is no constant; use internal/boundedregexp", position)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// variableRegexps returns the positions in a file where package regexp gets a pattern that is no literal.
func variableRegexps(t *testing.T, path string) []string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok || pkg.Name != "regexp" || pkg.Obj != nil {
			return true
		}
		if slices.Contains([]string{"Compile", "MustCompile", "CompilePOSIX", "MustCompilePOSIX", "Match", "MatchString", "MatchReader"}, sel.Sel.Name) {
			out = append(out, fset.Position(n.Pos()).String())
		}
		return true
	})
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && len(call.Args) > 0 && literal(call.Args[0]) {
			at := fset.Position(call.Fun.Pos()).String()
			out = slices.DeleteFunc(out, func(p string) bool { return p == at })
		}
		return true
	})
	return out
}

// literal reports whether an expression consists of literals.
func literal(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.BinaryExpr:
		return literal(e.X) && literal(e.Y)
	}
	return false
}

// TestRegexps_Variable: the test finds calls and references, and no literals.
func TestRegexps_Variable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.go")
	const source = `package a

import "regexp"

var (
	fine    = regexp.MustCompile("a" + "b")
	compile = regexp.MustCompile
)

func f(s string) {
	_, _ = regexp.Compile("^" + s)
	_, _ = regexp.MatchString(s, "a")
}
`
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range variableRegexps(t, path) {
		lines = append(lines, strings.TrimPrefix(p, path+":"))
	}
	if diff := cmp.Diff([]string{"7:12", "11:9", "12:9"}, lines); diff != "" {
		t.Errorf("positions (-want +got):\n%s", diff)
	}
}
