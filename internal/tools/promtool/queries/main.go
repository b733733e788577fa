// Command queries reads a JSON array of PromQL expressions from standard input, parses each with Prometheus' own parser, and
// writes for each the metrics that it reads, with the labels that it uses of them.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// metric is a metric that an expression reads, and the labels that it selects, groups or matches by.
type metric struct {
	Name   string   `json:"name"`
	Labels []string `json:"labels"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var expressions []string
	if err := json.NewDecoder(in).Decode(&expressions); err != nil {
		return fmt.Errorf("reading the expressions: %w", err)
	}
	p := parser.NewParser(parser.Options{})
	read := make([][]metric, len(expressions))
	for i, text := range expressions {
		e, err := p.ParseExpr(text)
		if err != nil {
			return fmt.Errorf("parsing %s: %w", text, err)
		}
		read[i] = metrics(e, nil)
	}
	if err := json.NewEncoder(out).Encode(read); err != nil {
		return fmt.Errorf("writing the metrics: %w", err)
	}
	return nil
}

// metrics returns the metrics below a node; used are the labels that the nodes above it use.
func metrics(n parser.Node, used []string) []metric {
	switch n := n.(type) {
	case *parser.VectorSelector:
		m := metric{Name: n.Name, Labels: used}
		for _, l := range n.LabelMatchers {
			if l.Name == labels.MetricName {
				m.Name = l.Value
			} else {
				m.Labels = append(slices.Clone(m.Labels), l.Name)
			}
		}
		return []metric{m}
	case *parser.AggregateExpr:
		if !n.Without {
			// Labels outside of the aggregation are among these.
			used = n.Grouping
		}
	case *parser.BinaryExpr:
		if n.VectorMatching != nil && n.VectorMatching.On {
			used = slices.Concat(used, n.VectorMatching.MatchingLabels)
		}
	}
	var out []metric
	for child := range parser.ChildrenIter(n) {
		out = append(out, metrics(child, used)...)
	}
	return out
}
