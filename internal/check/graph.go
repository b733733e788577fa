package check

import (
	"fmt"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/report"
)

// addToGraph adds a cluster's Kustomizations to the graph, with their dependencies and the Kustomizations that apply
// them. Their IDs contain the name of the cluster if there are several.
func addToGraph(g *report.Graph, c *kustomization.Cluster, several bool, findings []report.Finding) {
	prefix := ""
	if several {
		prefix = c.Name + " "
	}
	worst := map[string]v1alpha1.Action{}
	about := func(f *report.Finding) []string {
		out := []string{f.Kustomization}
		if f.Object.Kind == "Kustomization" {
			out = append(out, f.Object.Namespace+"/"+f.Object.Name)
		}
		return out
	}
	for i := range findings {
		if !findings[i].Counts() || findings[i].Cluster != nameOfCluster(c) {
			continue
		}
		for _, id := range about(&findings[i]) {
			if findings[i].Action == v1alpha1.ActionDeny || worst[id] == "" {
				worst[id] = findings[i].Action
			}
		}
	}
	known := map[string]bool{}
	for _, k := range c.Kustomizations {
		id := k.Key.String()
		known[id] = true
		n := report.Node{
			ID: prefix + id, Label: id, Detail: fmt.Sprintf("%s, %d objects, %s", k.Path, len(k.Objects), k.State),
			State: report.NodeOK,
		}
		switch {
		case worst[id] == v1alpha1.ActionDeny || k.Failed():
			n.State = report.NodeFailing
		case k.State == kustomization.Unknown:
			n.State = report.NodeUnknown
		case worst[id] == v1alpha1.ActionWarn:
			n.State = report.NodeWarned
		}
		g.Nodes = append(g.Nodes, n)
	}
	for _, k := range c.Kustomizations {
		for _, d := range k.DependsOn() {
			if !known[d.String()] {
				known[d.String()] = true
				g.Nodes = append(g.Nodes, report.Node{
					ID: prefix + d.String(), Label: d.String(), Detail: "does not exist", State: report.NodeMissing,
				})
			}
			other := c.Kustomization(d)
			g.Edges = append(g.Edges, report.Edge{
				From: prefix + k.Key.String(), To: prefix + d.String(),
				Broken: other == nil || reaches(c, other, k, map[*kustomization.Kustomization]bool{}),
			})
		}
	}
}

// reaches reports whether from depends on to, directly or through others.
func reaches(
	c *kustomization.Cluster, from, to *kustomization.Kustomization, seen map[*kustomization.Kustomization]bool,
) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	for _, d := range from.DependsOn() {
		if next := c.Kustomization(d); next != nil && reaches(c, next, to, seen) {
			return true
		}
	}
	return false
}
