package report

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/report/layout"
	"github.com/flux-admission/flux-admission/validators"
)

// The parts of the page, which includes them: it loads nothing from the network.
var (
	//go:embed page/page.html.tmpl
	pageTemplate string
	//go:embed page/page.css
	pageStyle string
	//go:embed page/page.js
	pageScript string
)

// pageData is the data of the template.
type pageData struct {
	Report *Report
	Style  template.CSS
	Script template.JS
	// Policy is the Content-Security-Policy of the page. It allows the page's own style and script only, by their hashes, so that a name in a
	// hostile tree cannot run code even if it is not escaped.
	Policy  string
	Graph   *drawing
	Groups  []*pageGroup
	Rules   []pageRule
	Skipped []*skippedGroup
	// Suppressed findings are hidden until the reader asks for them.
	Shown, Suppressed int
	DocsURL           string
}

// pageGroup contains the findings of one Kustomization.
type pageGroup struct {
	Title, Anchor string
	Items         []*pageFinding
	Deny, Warn    int
}

// pageFinding is the first finding of a group, with the others.
type pageFinding struct {
	*Finding
	Rest []*Finding
}

// pageRule is a rule with findings.
type pageRule struct {
	*validators.Meta
	Count int
}

// WriteHTML writes the report as a self-contained HTML page.
func WriteHTML(w io.Writer, r *Report, o Options) error {
	t, err := template.New("page").Funcs(template.FuncMap{"count": count, "lower": lower, "printable": printable, "node": r.nodeOf}).Parse(pageTemplate)
	if err != nil {
		return err
	}
	d := &pageData{
		Report: r, Style: template.CSS(pageStyle), Script: template.JS(pageScript),
		Policy:  fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", hashSource(pageStyle), hashSource(pageScript)),
		Skipped: slices.DeleteFunc(groupSkipped(r.Skipped), func(s *skippedGroup) bool { return !s.Unknown }),
		DocsURL: o.DocsURL, Suppressed: r.Summary.Suppressed,
	}
	anchors := d.groups(r)
	d.Graph = draw(r.Graph, anchors)
	d.rules(r)
	return t.Execute(w, d)
}

func lower(a v1alpha1.Action) string { return strings.ToLower(string(a)) }

func hashSource(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// groups sets the findings by Kustomization, those with the strictest action first. It returns the anchors of the Kustomizations with findings.
func (d *pageData) groups(r *Report) map[string]string {
	byName := map[string]*pageGroup{}
	anchors := map[string]string{}
	// elsewhere has Kustomizations of findings that are written in the group of another one.
	var elsewhere [][2]string
	for _, counts := range []bool{true, false} {
		// Suppressed findings are not in one group with others.
		for _, g := range groupFindings(r.Findings, func(f *Finding) bool { return f.Counts() == counts }) {
			name := r.nodeOf(g.first)
			group := byName[name]
			if group == nil {
				group = &pageGroup{Title: name}
				byName[name] = group
				d.Groups = append(d.Groups, group)
			}
			group.Items = append(group.Items, &pageFinding{Finding: g.first, Rest: g.rest})
			d.Shown++
			for _, f := range g.rest {
				elsewhere = append(elsewhere, [2]string{r.nodeOf(f), name})
			}
			if counts && g.first.Action == v1alpha1.ActionDeny {
				group.Deny++
			} else if counts && g.first.Action == v1alpha1.ActionWarn {
				group.Warn++
			}
		}
	}
	slices.SortStableFunc(d.Groups, func(a, b *pageGroup) int {
		return cmp.Or(boolInt(b.Deny > 0)-boolInt(a.Deny > 0), boolInt(b.Warn > 0)-boolInt(a.Warn > 0), boolInt(a.Title == "")-boolInt(b.Title == ""), cmp.Compare(a.Title, b.Title))
	})
	for i, g := range d.Groups {
		slices.SortStableFunc(g.Items, func(a, b *pageFinding) int { return cmp.Compare(rank(a.Finding), rank(b.Finding)) })
		g.Anchor = fmt.Sprintf("group-%d", i+1)
		anchors[g.Title] = g.Anchor
		if g.Title == "" {
			g.Title = "No Kustomization"
		}
	}
	for _, e := range elsewhere {
		if anchors[e[0]] == "" {
			anchors[e[0]] = anchors[e[1]]
		}
	}
	return anchors
}

// nodeOf returns the ID of the finding's Kustomization in the graph: with the name of the cluster if there are several.
func (r *Report) nodeOf(f *Finding) string {
	if len(r.Clusters) > 1 && f.Cluster != "" {
		return strings.TrimSpace(f.Cluster + " " + f.Kustomization)
	}
	return f.Kustomization
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rank sorts findings by action, the strictest first and suppressed ones last.
func rank(f *Finding) int {
	switch {
	case !f.Counts():
		return 3
	case f.Action == v1alpha1.ActionDeny:
		return 0
	case f.Action == v1alpha1.ActionWarn:
		return 1
	}
	return 2
}

func (d *pageData) rules(r *Report) {
	counts := map[string]int{}
	known := map[string]bool{}
	for i := range r.Findings {
		if r.Findings[i].Counts() {
			counts[r.Findings[i].Rule]++
		}
	}
	for _, m := range r.Rules {
		known[m.Name] = true
		if counts[m.Name] > 0 {
			d.Rules = append(d.Rules, pageRule{m, counts[m.Name]})
		}
	}
	for i := range r.Findings {
		if f := &r.Findings[i]; !known[f.Rule] && f.Counts() {
			known[f.Rule] = true
			d.Rules = append(d.Rules, pageRule{&validators.Meta{ID: f.ID, Name: f.Rule}, counts[f.Rule]})
		}
	}
	slices.SortStableFunc(d.Rules, func(a, b pageRule) int { return cmp.Compare(a.ID, b.ID) })
}

// drawing is the graph on the page.
type drawing struct {
	Width, Height float64
	Nodes         []drawnNode
	Edges         []drawnEdge
	// States are the states of all nodes, for the legend.
	States []NodeState
	Broken bool
}

// drawnNode is a node with its name on the first line and its namespace, if it has one, on the second.
type drawnNode struct {
	X, Y, W, H          float64
	MarkX, TextX        float64
	MiddleY, NameY      float64
	NamespaceY          float64
	Name, Namespace     string
	Title, Mark, Anchor string
	State               NodeState
}

type drawnEdge struct {
	Path   string
	Broken bool
	Title  string
}

// The dimensions of the drawing, in CSS pixels.
const (
	nodeWidth, nodeHeight = 236, 40
	margin                = 12
	// labelLength is the number of characters that fit into a node.
	labelLength = 25
)

// draw returns the layout of the graph; nil if it has no nodes.
func draw(g Graph, anchors map[string]string) *drawing {
	if len(g.Nodes) == 0 {
		return nil
	}
	index := map[string]int{}
	for i, n := range g.Nodes {
		index[n.ID] = i
	}
	var edges []layout.Edge
	var drawn []Edge
	for _, e := range g.Edges {
		from, okFrom := index[e.From]
		to, okTo := index[e.To]
		if okFrom && okTo {
			edges = append(edges, layout.Edge{From: from, To: to})
			drawn = append(drawn, e)
		}
	}
	pic := layout.Compute(len(g.Nodes), edges, layout.Size{Width: nodeWidth, Height: nodeHeight, GapX: 64, GapY: 14, Columns: 5})
	d := &drawing{Width: pic.Width + 2*margin, Height: pic.Height + 2*margin}
	states := map[NodeState]bool{}
	for i, n := range g.Nodes {
		x, y := pic.Nodes[i].X+margin, pic.Nodes[i].Y+margin
		label := cmp.Or(n.Label, n.ID)
		node := drawnNode{
			X: x, Y: y, W: nodeWidth, H: nodeHeight, Title: printable(label), State: n.State, Mark: mark(n.State), Anchor: anchors[n.ID],
			MarkX: x + 17, TextX: x + 33, MiddleY: y + nodeHeight/2, NameY: y + nodeHeight/2, NamespaceY: y + nodeHeight - 12,
		}
		label = printable(label)
		node.Name = label
		if namespace, name, ok := strings.Cut(label, "/"); ok {
			node.Name, node.Namespace, node.NameY = name, shortenMiddle(namespace, labelLength), y+14
		}
		node.Name = shortenMiddle(node.Name, labelLength)
		if n.Detail != "" {
			node.Title += ": " + printable(n.Detail)
		}
		states[n.State] = true
		d.Nodes = append(d.Nodes, node)
	}
	for i, e := range drawn {
		if pic.Routes[i] == nil {
			continue
		}
		d.Broken = d.Broken || e.Broken
		d.Edges = append(d.Edges, drawnEdge{Path: curve(pic.Routes[i]), Broken: e.Broken, Title: printable(e.From + " depends on " + e.To)})
	}
	// Broken edges are drawn last, over the others.
	slices.SortStableFunc(d.Edges, func(a, b drawnEdge) int { return boolInt(a.Broken) - boolInt(b.Broken) })
	for _, s := range []NodeState{NodeFailing, NodeMissing, NodeWarned, NodeUnknown, NodeOK} {
		if states[s] {
			d.States = append(d.States, s)
		}
	}
	return d
}

// mark returns a symbol of the state, for readers who do not see colors.
func mark(s NodeState) string {
	switch s {
	case NodeFailing:
		return "✕"
	case NodeMissing:
		return "?"
	case NodeWarned:
		return "!"
	case NodeUnknown:
		return "–"
	case NodeOK:
		return "✓"
	}
	return ""
}

// shortenMiddle shortens a name to n characters in the middle, since its end is often more specific.
func shortenMiddle(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	head := (n - 1) / 2
	return string(r[:head]) + "…" + string(r[len(r)-(n-1-head):])
}

// curve returns the route as an SVG path: a curve between two layers, a line across a layer.
func curve(points []layout.Point) string {
	var b strings.Builder
	at := func(p layout.Point) string { return fmt.Sprintf("%.1f %.1f", p.X+margin, p.Y+margin) }
	fmt.Fprintf(&b, "M%s", at(points[0]))
	for i := 1; i < len(points); i++ {
		p, q := points[i-1], points[i]
		if i%2 == 0 || p.Y == q.Y {
			fmt.Fprintf(&b, "L%s", at(q))
			continue
		}
		middle := (p.X + q.X) / 2
		fmt.Fprintf(&b, "C%s %s %s", at(layout.Point{X: middle, Y: p.Y}), at(layout.Point{X: middle, Y: q.Y}), at(q))
	}
	return b.String()
}
