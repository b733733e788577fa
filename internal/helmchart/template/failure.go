package template

import (
	"errors"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template/parse"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/validators"
)

// location matches the position and the expression in an error of Go's templates:
// app/templates/x.yaml:3:4: executing "name" at <expression>:
var location = regexp.MustCompile(`([^\s"<>():]+):(\d+)(?::(\d+))?\)?:?(?:\s+executing "[^"\n]*" at <(.*?)>:)?`)

// failureOf parses an error of Helm's engine.
func failureOf(err error, c *chart.Chart) *Failure {
	texts := map[string]string{}
	collectTemplates(c, texts)
	text := err.Error()
	f := &Failure{}
	end, found, inValue := 0, false, false
	var positions []position
	for _, m := range location.FindAllStringSubmatchIndex(text, -1) {
		file := text[m[2]:m[3]]
		if _, ok := texts[file]; !ok {
			continue
		}
		end = m[1]
		if !found {
			f.root, found = file, true
		}
		// Inside a value that is itself a template, the lines are those of the value.
		if inValue {
			continue
		}
		f.Template = file
		f.Line, _ = strconv.Atoi(text[m[4]:m[5]])
		f.Column = 0
		if m[6] >= 0 {
			column, _ := strconv.Atoi(text[m[6]:m[7]])
			f.Column = column + 1
		}
		positions = append(positions, position{file, f.Line, f.Column})
		inValue = m[8] >= 0 && strings.HasPrefix(text[m[8]:m[9]], "tpl ")
	}
	if own, ok := errors.AsType[*authorError](err); ok {
		f.Message = own.text
	} else {
		f.Message = text[end:]
		for {
			// The position already names the included template.
			_, rest, ok := strings.Cut(strings.TrimSpace(f.Message), "error calling include: ")
			if !ok {
				break
			}
			f.Message = rest
		}
	}
	f.Message = strings.TrimRight(strings.Join(strings.Fields(f.Message), " "), ".")
	// Helpers read their argument instead of .Values: continue with the template that includes them.
	for i := len(positions) - 1; i >= 0 && f.Values == nil; i-- {
		f.Values = valueAt(positions[i], texts[positions[i].file], valuesRoot(f.root))
	}
	return f
}

// position is a line and column of a template, from 1; the column is 0 when not known.
type position struct {
	file         string
	line, column int
}

// collectTemplates collects the templates of a chart and its subcharts by the names that Helm's engine gives them.
func collectTemplates(c *chart.Chart, into map[string]string) {
	for _, f := range c.Templates {
		into[path.Join(c.ChartFullPath(), f.Name)] = string(f.Data)
	}
	for _, d := range c.Dependencies() {
		collectTemplates(d, into)
	}
}

// valuesRoot returns the path, in the release's values, of the values of the chart that a template belongs to.
func valuesRoot(template string) validators.Path {
	dir, _, _ := strings.Cut(template, "/templates/")
	var out validators.Path
	for i, name := range strings.Split(dir, "/charts/") {
		if i > 0 {
			out = out.Child(name)
		}
	}
	return out
}

// valueAt returns the value that a template reads at a position, or else the value that the enclosing condition reads.
func valueAt(p position, text string, root validators.Path) validators.Path {
	if p.column == 0 {
		return nil
	}
	t := parse.New(p.file)
	t.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	if _, err := t.Parse(text, "", "", trees); err != nil {
		return nil
	}
	lines := strings.SplitAfterN(text, "\n", p.line+1)
	if p.line > len(lines) {
		return nil
	}
	at := p.column - 1
	for _, l := range lines[:p.line-1] {
		at += len(l)
	}
	for _, t := range trees {
		if t.Root == nil {
			continue
		}
		f := finder{at: parse.Pos(at)}
		f.visit(t.Root, nil)
		if !f.done || len(f.found) == 0 {
			continue
		}
		if f.found[0] == "global" {
			root = nil // global values are at the root for all charts
		}
		out := root
		for _, k := range f.found {
			out = out.Child(k)
		}
		return out
	}
	return nil
}

// finder searches for the node at an offset, and for the value that it reads.
type finder struct {
	at    parse.Pos
	found []string
	done  bool
}

// visit searches a node that is inside the branches around, the outermost first.
func (f *finder) visit(n parse.Node, around []parse.Node) {
	if f.done {
		return
	}
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, c := range n.Nodes {
				f.visit(c, around)
			}
		}
	case *parse.ActionNode:
		f.pipe(n.Pipe, around)
	case *parse.TemplateNode:
		f.pipe(n.Pipe, around)
	case *parse.IfNode:
		f.branch(&n.BranchNode, n, around)
	case *parse.WithNode:
		f.branch(&n.BranchNode, n, around)
	case *parse.RangeNode:
		f.branch(&n.BranchNode, n, around)
	}
}

func (f *finder) branch(b *parse.BranchNode, n parse.Node, around []parse.Node) {
	f.pipe(b.Pipe, around)
	within := append(slices.Clip(around), n)
	f.visit(b.List, within)
	f.visit(b.ElseList, within)
}

// pipe searches a pipeline: its commands and their operands.
func (f *finder) pipe(p *parse.PipeNode, around []parse.Node) {
	if p == nil || f.done {
		return
	}
	for _, n := range flat(p) {
		if n.Position() != f.at {
			continue
		}
		f.done = true
		f.found = values(n)
		if command, ok := n.(*parse.CommandNode); ok && f.found == nil && len(p.Cmds) > 1 && p.Cmds[0] != command {
			f.found = values(p) // the input of the pipeline
		}
		for i := len(around) - 1; i >= 0 && f.found == nil; i-- {
			f.found = f.outer(n, around[i])
		}
		return
	}
}

// outer returns the value that the branch around a node reads. In a with, a node's field is a field of that value.
func (f *finder) outer(n, around parse.Node) []string {
	switch b := around.(type) {
	case *parse.WithNode:
		out := values(b.Pipe)
		if field, ok := n.(*parse.FieldNode); ok && out != nil {
			return append(slices.Clip(out), field.Ident...)
		}
		return out
	case *parse.IfNode:
		return values(b.Pipe)
	case *parse.RangeNode:
		return values(b.Pipe)
	}
	return nil
}

// flat lists the commands and operands of a pipeline, each before its own operands.
func flat(n parse.Node) []parse.Node {
	var out []parse.Node
	switch n := n.(type) {
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			out = append(out, flat(c)...)
		}
	case *parse.CommandNode:
		out = append(out, n)
		for _, a := range n.Args {
			out = append(out, flat(a)...)
		}
	case *parse.ChainNode:
		out = append(append(out, n), flat(n.Node)...)
	default:
		out = append(out, n)
	}
	return out
}

// values returns the path of the first value that a node reads, below .Values.
func values(n parse.Node) []string {
	for _, c := range flat(n) {
		switch c := c.(type) {
		case *parse.FieldNode:
			if c.Ident[0] == "Values" && len(c.Ident) > 1 {
				return c.Ident[1:]
			}
		case *parse.VariableNode:
			if len(c.Ident) > 2 && c.Ident[1] == "Values" {
				return c.Ident[2:]
			}
		}
	}
	return nil
}
