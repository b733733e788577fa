package build

import (
	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
)

// yamlFix is the fix of a file that does not parse.
const yamlFix = "Correct the YAML at this line or just above it."

// repair replaces a file of resources with duplicate keys by one that kustomize can read, and reports whether
// kustomize can read the file.
func (g *graph) repair(p string, f *sourcetree.File) bool {
	parsed := f.Parse()
	if failure := parsed.Failure(); failure != nil {
		problem := buildFailed(failure.Position, "the build fails: %s", failure.Message)
		problem.Fix = yamlFix
		g.report(problem)
		return false
	}
	if _, done := g.written[p]; done {
		return true
	}
	for _, duplicate := range parsed.Problems {
		if duplicate.Kind != validators.ProblemDuplicateKey {
			continue
		}
		problem := buildFailed(duplicate.Position, "the build fails: duplicate key %q; first defined at line %d", duplicate.Name, duplicate.Related[0].Line)
		problem.Name, problem.Related = duplicate.Name, duplicate.Related
		problem.Fix = "Remove one of the two keys."
		g.report(problem)
		if data, err := withoutDuplicates(parsed.Documents); err == nil {
			g.written[p] = data
		}
	}
	return true
}

// withoutDuplicates writes the documents with only the last of duplicate keys.
func withoutDuplicates(docs []*yaml.Node) ([]byte, error) {
	out := make([]*yaml.Node, 0, len(docs))
	for _, d := range docs {
		out = append(out, unique(d))
	}
	return encodeDocuments(out)
}

// unique copies a node with only the last of duplicate keys.
func unique(n *yaml.Node) *yaml.Node {
	out := *n
	out.Content = nil
	if n.Kind != yaml.MappingNode {
		for _, c := range n.Content {
			out.Content = append(out.Content, unique(c))
		}
		return &out
	}
	at := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], unique(n.Content[i+1])
		if j, dup := at[key.Value]; dup && key.Kind == yaml.ScalarNode {
			out.Content[j+1] = value
			continue
		}
		at[key.Value] = len(out.Content)
		out.Content = append(out.Content, key, value)
	}
	return &out
}
