// Command dockerlint checks a Dockerfile with BuildKit's own parser and linter, without building it.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dockerlint DOCKERFILE")
		os.Exit(2)
	}
	problems, err := lint(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "dockerlint:", err)
		os.Exit(1)
	}
	for _, p := range problems {
		fmt.Println(p)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
	fmt.Printf("%s: no problems\n", os.Args[1])
}

// lint returns the warnings of BuildKit about a Dockerfile, and violations of the further requirements for images of this
// project.
func lint(path string) (problems []string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	ast, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, w := range ast.Warnings {
		problems = append(problems, fmt.Sprintf("%s: %s", path, w.Short))
	}
	l := linter.New(&linter.Config{Warn: func(rule, _, _, message string, at []parser.Range) {
		line := 0
		if len(at) > 0 {
			line = at[0].Start.Line
		}
		problems = append(problems, fmt.Sprintf("%s:%d: %s: %s", path, line, rule, message))
	}})
	stages, _, err := instructions.Parse(ast.AST, l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(stages) < 2 {
		problems = append(problems, path+": the image must be built in more than one stage")
	}
	user := ""
	for _, c := range stages[len(stages)-1].Commands {
		if u, ok := c.(*instructions.UserCommand); ok {
			user = u.User
		}
	}
	if user == "" || strings.HasPrefix(user, "0") || strings.HasPrefix(user, "root") {
		problems = append(problems, path+": the last stage must set a USER that is not root, by number")
	}
	for _, s := range stages {
		if strings.HasSuffix(s.BaseName, ":latest") || !strings.Contains(s.BaseName, ":") {
			problems = append(problems, fmt.Sprintf("%s: the base %s must be pinned by a tag other than latest", path, s.BaseName))
		}
	}
	return problems, nil
}
