package report

import (
	"bufio"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/flux-admission/flux-admission/internal/delivery"
)

// Delivery is why objects of a cluster are not ready. Its JSON tags define the JSON format.
type Delivery struct {
	Version string `json:"version"`
	Tool    Tool   `json:"tool"`
	*delivery.Report
	// Of is the object that the report is about; nil for the whole cluster.
	Of *delivery.Ref `json:"of,omitempty"`
	// Now is the time at which the objects were read; zero if that is not known.
	Now time.Time `json:"-"`
}

// deliveryVersion is the version of the JSON format.
const deliveryVersion = "1"

// DeliveryFormats returns the formats of WriteDelivery.
func DeliveryFormats() []Format { return []Format{Text, JSON, HTML} }

// WriteDelivery writes the report in a format.
func WriteDelivery(w io.Writer, format Format, d *Delivery, o Options) error {
	d.Version = deliveryVersion
	switch format {
	case JSON:
		return writeJSON(w, d)
	case HTML:
		return writeDeliveryHTML(w, d)
	case Text:
		return writeDeliveryText(w, d, o)
	case SARIF, JUnit, GitHub, Markdown:
	}
	return fmt.Errorf("%s is no format of this report", format)
}

// headline is the first line: how much is not ready, and how many roots that has.
func (d *Delivery) headline() string {
	s := d.Summary
	if len(d.Roots) == 0 {
		if d.Of != nil {
			return d.Of.String() + " is ready"
		}
		return count(s.Objects, "object", "objects") + ", all ready"
	}
	parts := []string{fmt.Sprintf("%d not ready", s.NotReady), count(s.Roots, "root", "roots")}
	if s.InProgress > 0 {
		parts = append(parts, fmt.Sprintf("%d in progress", s.InProgress))
	}
	if s.Unknown > 0 {
		parts = append(parts, fmt.Sprintf("%d unknown", s.Unknown))
	}
	return strings.Join(parts, ", ")
}

// maxBlocked is the number of waiting objects that the text has for a root.
const maxBlocked = 30

// writeDeliveryText writes each root with a tree of what waits for it.
func writeDeliveryText(w io.Writer, d *Delivery, o Options) error {
	t := &textWriter{w: bufio.NewWriter(w), color: o.Color}
	t.line("%s", t.paint(bold, printable(d.headline())))
	waiting := d.waiting()
	for _, r := range d.Roots {
		t.line("")
		t.root(r, d.Now)
		if len(r.Blocked) > 0 {
			t.line("  blocks %d:", len(r.Blocked))
			tree := &deliveryTree{waiting: waiting, seen: map[delivery.Ref]bool{r.Object: true}}
			for _, ref := range r.Cycle {
				tree.seen[ref] = true
			}
			tree.below(r.Object, "  ")
			for _, ref := range r.Cycle {
				tree.below(ref, "  ")
			}
			for _, line := range tree.lines[:min(len(tree.lines), maxBlocked)] {
				t.line("%s", printable(line))
			}
			if rest := len(tree.lines) - maxBlocked; rest > 0 {
				t.line("  %s", t.paint(dim, fmt.Sprintf("and %d more; --output json has all", rest)))
			}
		}
	}
	if len(d.NotRead) > 0 {
		t.line("")
		t.line("%s", t.paint(yellow, "Not looked at:"))
		for _, n := range d.NotRead {
			t.line("  %s: %s", printable(n.What), printable(n.Reason))
		}
	}
	return t.w.Flush()
}

// root writes one root.
func (t *textWriter) root(r *delivery.Root, now time.Time) {
	color := red
	if !r.State.Certain() {
		color = yellow
	}
	title := fmt.Sprintf("%s  %s", t.paint(color, string(r.State)), t.paint(bold, printable(r.Object.String())))
	if r.Owner != nil && *r.Owner != r.Object {
		title += t.paint(dim, printable(fmt.Sprintf("  (%s)", r.Owner)))
	}
	t.line("%s", title)
	field := func(name, text string) {
		if text != "" {
			t.line("  %-9s %s", name+":", printable(text))
		}
	}
	field("cause", string(r.Cause))
	field("message", r.Message)
	if len(r.Cycle) > 0 {
		field("cycle", joinRefs(r.Cycle))
	}
	for _, f := range r.Finalizers {
		field("held by", fmt.Sprintf("finalizer %s, controller %s (%s)", f.Name, f.Controller, f.Detail))
	}
	field("evidence", r.Evidence)
	if r.Since != nil && !now.IsZero() {
		field("since", age(now.Sub(*r.Since)))
	}
	for _, note := range r.Notes {
		field("note", note)
	}
	if r.Source != nil {
		field("in Git", fmt.Sprintf("%s:%d", r.Source.File, r.Source.Line))
	}
	field("fix", r.Fix)
}

func joinRefs(refs []delivery.Ref) string {
	names := make([]string, 0, len(refs))
	for _, r := range refs {
		names = append(names, r.String())
	}
	return strings.Join(names, ", ")
}

// age writes a duration for people.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d/day))
}

// waiting returns what waits for each object directly.
func (d *Delivery) waiting() map[delivery.Ref][]delivery.Ref {
	out := map[delivery.Ref][]delivery.Ref{}
	for _, o := range d.Objects {
		for _, e := range o.WaitsFor {
			out[e.To] = append(out[e.To], o.Object)
		}
	}
	return out
}

// deliveryTree writes what waits for a root. An object that waits in several ways is written once.
type deliveryTree struct {
	waiting map[delivery.Ref][]delivery.Ref
	seen    map[delivery.Ref]bool
	lines   []string
}

func (t *deliveryTree) below(ref delivery.Ref, indent string) {
	var next []delivery.Ref
	for _, w := range t.waiting[ref] {
		if !t.seen[w] {
			t.seen[w] = true
			next = append(next, w)
		}
	}
	for i, w := range next {
		branch, more := "├─ ", "│  "
		if i == len(next)-1 {
			branch, more = "└─ ", "   "
		}
		t.lines = append(t.lines, indent+branch+w.String())
		t.below(w, indent+more)
	}
}

// The parts of the page of a delivery, which has the style and the script of the report's page.
//
//go:embed page/delivery.html.tmpl
var deliveryTemplate string

// maxDrawn is the number of nodes that the page draws.
const maxDrawn = 400

// deliveryPage is the data of the template.
type deliveryPage struct {
	*Delivery
	Headline string
	Style    template.CSS
	Script   template.JS
	Policy   string
	Graph    *drawing
	// NotDrawn is the number of objects that the graph leaves out.
	NotDrawn int
	Cards    []deliveryCard
}

type deliveryCard struct {
	*delivery.Root
	Anchor, Class, Age, Owner string
	Tree                      []string
}

// writeDeliveryHTML writes the report as a self-contained HTML page.
func writeDeliveryHTML(w io.Writer, d *Delivery) error {
	t, err := template.New("delivery").Funcs(template.FuncMap{"count": count, "printable": printable}).Parse(deliveryTemplate)
	if err != nil {
		return err
	}
	p := &deliveryPage{
		Delivery: d, Headline: d.headline(), Style: template.CSS(pageStyle), Script: template.JS(pageScript),
		Policy: fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", hashSource(pageStyle), hashSource(pageScript)),
	}
	anchors := map[string]string{}
	waiting := d.waiting()
	for i, r := range d.Roots {
		card := deliveryCard{Root: r, Anchor: fmt.Sprintf("root-%d", i+1), Class: "deny"}
		if !r.State.Certain() {
			card.Class = "warn"
		}
		if r.Since != nil && !d.Now.IsZero() {
			card.Age = age(d.Now.Sub(*r.Since))
		}
		if r.Owner != nil && *r.Owner != r.Object {
			card.Owner = r.Owner.String()
		}
		tree := &deliveryTree{waiting: waiting, seen: map[delivery.Ref]bool{r.Object: true}}
		for _, ref := range slices.Concat([]delivery.Ref{r.Object}, r.Cycle) {
			tree.seen[ref] = true
		}
		for _, ref := range slices.Concat([]delivery.Ref{r.Object}, r.Cycle) {
			tree.below(ref, "")
		}
		card.Tree = tree.lines
		anchors[r.Object.String()] = card.Anchor
		p.Cards = append(p.Cards, card)
	}
	graph, left := d.graph()
	p.NotDrawn = left
	p.Graph = draw(graph, anchors)
	return t.Execute(w, p)
}

// graph returns the roots and what waits for them, and how many of these are left out.
func (d *Delivery) graph() (g Graph, left int) {
	states := map[delivery.Ref]NodeState{}
	details := map[delivery.Ref]string{}
	var order []delivery.Ref
	add := func(ref delivery.Ref, state NodeState, detail string) {
		if _, ok := states[ref]; !ok {
			order = append(order, ref)
			states[ref], details[ref] = state, detail
		}
	}
	for _, r := range d.Roots {
		state := NodeFailing
		switch {
		case r.State == delivery.Missing:
			state = NodeMissing
		case !r.State.Certain():
			state = NodeUnknown
		}
		add(r.Object, state, string(r.Cause))
	}
	for _, o := range d.Objects {
		add(o.Object, NodeWarned, string(o.Cause))
		for _, e := range o.WaitsFor {
			add(e.To, NodeWarned, "")
		}
	}
	if left = len(order) - maxDrawn; left > 0 {
		order = order[:maxDrawn]
	}
	for _, ref := range order {
		label := ref.String()
		if ref.Namespace != "" {
			label = ref.Namespace + "/" + ref.Kind + " " + ref.Name
		}
		g.Nodes = append(g.Nodes, Node{ID: ref.String(), Label: label, State: states[ref], Detail: cmp.Or(details[ref], string(states[ref]))})
	}
	for _, o := range d.Objects {
		for _, e := range o.WaitsFor {
			g.Edges = append(g.Edges, Edge{From: o.Object.String(), To: e.To.String()})
		}
	}
	return g, max(left, 0)
}
