// Package layout computes a layered layout of a directed graph, with dependencies left of their dependents, by the method of Sugiyama, Tagawa and
// Toda. The graph may have cycles. The result is deterministic.
package layout

import (
	"cmp"
	"math"
	"slices"
)

// Size contains the dimensions of the layout.
type Size struct {
	// Width and Height are those of a node, GapX the gap between layers, GapY the gap between nodes of a layer.
	Width, Height, GapX, GapY float64
	// Columns is the number of columns of the nodes without edges, which are below the others.
	Columns int
}

// Point is a point of the layout, relative to the top left corner.
type Point struct{ X, Y float64 }

// Result is the layout of a graph.
type Result struct {
	Width, Height float64
	// Nodes are the top left corners of the nodes.
	Nodes []Point
	// Routes are the points of each edge, from the right side of the dependency to the left side of the dependent; nil for an edge from a node
	// to itself.
	Routes [][]Point
	// Back marks the edges that close a cycle, which run to the left.
	Back []bool
}

// Edge is a dependency of the node From on the node To, by their indexes.
type Edge struct{ From, To int }

// sweeps is the number of passes that improve the order within the layers. More passes do not improve it further.
const sweeps = 8

// Compute returns the layout of n nodes. It ignores edges of nodes that do not exist.
func Compute(n int, edges []Edge, s Size) Result {
	p := Result{Nodes: make([]Point, n), Routes: make([][]Point, len(edges)), Back: make([]bool, len(edges))}
	g := newGraph(n, edges)
	for i := range edges {
		p.Back[i] = g.back[i]
	}
	columns := max(1, s.Columns)
	var single []int
	var parts []*part
	// Parts are side by side on shelves as wide as the widest part or the row of nodes without edges.
	room := float64(columns)*(s.Width+s.GapY) - s.GapY
	for _, members := range g.components() {
		if len(members) == 1 {
			single = append(single, members[0])
			continue
		}
		q := g.part(members)
		q.arrange(s)
		parts, room = append(parts, q), max(room, q.width)
	}
	var x, y, shelf float64
	for _, q := range parts {
		if x > 0 && (x+q.width > room || q.height > shelf) {
			x, y, shelf = 0, y+shelf+2*s.GapY, 0
		}
		q.write(s, Point{x, y}, &p)
		p.Width, p.Height, shelf = max(p.Width, x+q.width), max(p.Height, y+q.height), max(shelf, q.height)
		x += q.width + s.GapX
	}
	if len(parts) > 0 {
		y += shelf + 2*s.GapY
	}
	for i, v := range single {
		at := Point{float64(i%columns) * (s.Width + s.GapY), y + float64(i/columns)*(s.Height+s.GapY)}
		p.Nodes[v] = at
		p.Width, p.Height = max(p.Width, at.X+s.Width), at.Y+s.Height
	}
	return p
}

// graph has its edges reversed, so that they run from dependencies to dependents, without cycles.
type graph struct {
	n     int
	edges []Edge // as given
	back  []bool // closes a cycle
	next  [][]arc
}

// arc is the reversed form of an edge.
type arc struct{ to, edge int }

func newGraph(n int, edges []Edge) *graph {
	g := &graph{n: n, edges: edges, back: make([]bool, len(edges)), next: make([][]arc, n)}
	for i, e := range edges {
		if e.From != e.To && e.From >= 0 && e.To >= 0 && e.From < n && e.To < n {
			g.next[e.To] = append(g.next[e.To], arc{e.From, i})
		}
	}
	g.breakCycles()
	return g
}

// breakCycles marks the edges that lead back into the path of a depth-first search. It is not recursive, since a chain may be long.
func (g *graph) breakCycles() {
	const (
		unvisited = iota
		open
		done
	)
	state := make([]int, g.n)
	type frame struct{ node, arc int }
	for start := range g.n {
		if state[start] != unvisited {
			continue
		}
		state[start] = open
		stack := []frame{{node: start}}
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.arc == len(g.next[top.node]) {
				state[top.node] = done
				stack = stack[:len(stack)-1]
				continue
			}
			a := g.next[top.node][top.arc]
			top.arc++
			switch state[a.to] {
			case open:
				g.back[a.edge] = true
			case unvisited:
				state[a.to] = open
				stack = append(stack, frame{node: a.to})
			}
		}
	}
}

// components returns the connected components, the largest first, each sorted.
func (g *graph) components() [][]int {
	parent := make([]int, g.n)
	for i := range parent {
		parent[i] = i
	}
	find := func(v int) int {
		for parent[v] != v {
			parent[v] = parent[parent[v]]
			v = parent[v]
		}
		return v
	}
	for v, arcs := range g.next {
		for _, a := range arcs {
			parent[find(a.to)] = find(v)
		}
	}
	byRoot := map[int][]int{}
	for v := range g.n {
		byRoot[find(v)] = append(byRoot[find(v)], v)
	}
	out := make([][]int, 0, len(byRoot))
	for _, part := range byRoot {
		out = append(out, part)
	}
	slices.SortFunc(out, func(a, b []int) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a[0], b[0])) })
	return out
}

// part is one component with its layers. An edge that passes a layer has a point in it, so that edges do not run through nodes.
type part struct {
	nodes  []int         // members of the graph, by their index here
	layer  []int         // by index here, points included
	y      []float64     // by index here, points included: the middle
	left   [][]int       // neighbors in the layer before
	right  [][]int       // neighbors in the layer after
	layers [][]int       // order within each layer
	routes map[int][]int // by edge: the points it passes, from left to right, ends included
	back   map[int]bool
	width  float64
	height float64
}

func (g *graph) part(members []int) *part {
	p := &part{nodes: members, routes: map[int][]int{}, back: map[int]bool{}}
	local := map[int]int{}
	for i, v := range members {
		local[v] = i
	}
	type link struct{ from, to, edge int }
	var links []link
	for i, v := range members {
		for _, a := range g.next[v] {
			l := link{i, local[a.to], a.edge}
			if g.back[a.edge] {
				l.from, l.to = l.to, l.from
				p.back[a.edge] = true
			}
			links = append(links, l)
		}
	}
	forward := make([][]int, len(members))
	for _, l := range links {
		forward[l.from] = append(forward[l.from], l.to)
	}
	p.layer = longestPaths(forward)
	p.left, p.right = make([][]int, len(members)), make([][]int, len(members))
	slices.SortStableFunc(links, func(a, b link) int { return cmp.Compare(a.edge, b.edge) })
	for _, l := range links {
		route := []int{l.from}
		for at := p.layer[l.from] + 1; at < p.layer[l.to]; at++ {
			p.layer = append(p.layer, at)
			p.left, p.right = append(p.left, nil), append(p.right, nil)
			route = append(route, len(p.layer)-1)
		}
		route = append(route, l.to)
		for i := 1; i < len(route); i++ {
			p.right[route[i-1]] = append(p.right[route[i-1]], route[i])
			p.left[route[i]] = append(p.left[route[i]], route[i-1])
		}
		p.routes[l.edge] = route
	}
	for v, l := range p.layer {
		for len(p.layers) <= l {
			p.layers = append(p.layers, nil)
		}
		p.layers[l] = append(p.layers[l], v)
	}
	return p
}

// longestPaths returns the layer of each node of a graph without cycles: the length of the longest path to it. A node without incoming edges is
// then moved next to its nearest successor.
func longestPaths(next [][]int) []int {
	degree := make([]int, len(next))
	for _, list := range next {
		for _, to := range list {
			degree[to]++
		}
	}
	sources := make([]bool, len(next))
	var queue []int
	for v, d := range degree {
		if d == 0 {
			sources[v] = true
			queue = append(queue, v)
		}
	}
	layer := make([]int, len(next))
	for len(queue) > 0 {
		v := queue[0]
		queue = queue[1:]
		for _, to := range next[v] {
			layer[to] = max(layer[to], layer[v]+1)
			if degree[to]--; degree[to] == 0 {
				queue = append(queue, to)
			}
		}
	}
	for v, list := range next {
		if !sources[v] || len(list) == 0 {
			continue
		}
		first := math.MaxInt
		for _, to := range list {
			first = min(first, layer[to])
		}
		layer[v] = first - 1
	}
	return layer
}

// arrange computes the position of every node within the part.
func (p *part) arrange(s Size) {
	p.order()
	p.align(s)
	lowest, highest := math.Inf(1), math.Inf(-1)
	for v, y := range p.y {
		half := s.Height / 2
		if v >= len(p.nodes) {
			half = 0
		}
		lowest, highest = min(lowest, y-half), max(highest, y+half)
	}
	for v := range p.y {
		p.y[v] -= lowest
	}
	p.width, p.height = float64(len(p.layers))*(s.Width+s.GapX)-s.GapX, highest-lowest
}

// write adds the part to the result, with its top left corner at a point.
func (p *part) write(s Size, at Point, out *Result) {
	x := func(v int) float64 { return at.X + float64(p.layer[v])*(s.Width+s.GapX) }
	for i, v := range p.nodes {
		out.Nodes[v] = Point{x(i), at.Y + p.y[i] - s.Height/2}
	}
	for e, route := range p.routes {
		var points []Point
		for i, v := range route {
			y := at.Y + p.y[v]
			if i > 0 {
				points = append(points, Point{x(v), y})
			}
			if i < len(route)-1 {
				points = append(points, Point{x(v) + s.Width, y})
			}
		}
		if p.back[e] {
			slices.Reverse(points)
		}
		out.Routes[e] = points
	}
}

// order sorts each layer by the mean position of its neighbors, in both directions, and keeps the order with the fewest crossings.
func (p *part) order() {
	best, fewest := copyLayers(p.layers), p.crossings()
	for sweep := 0; sweep < sweeps && fewest > 0; sweep++ {
		if sweep%2 == 0 {
			for i := 1; i < len(p.layers); i++ {
				p.sortLayer(i, i-1, p.left)
			}
		} else {
			for i := len(p.layers) - 2; i >= 0; i-- {
				p.sortLayer(i, i+1, p.right)
			}
		}
		if n := p.crossings(); n < fewest {
			best, fewest = copyLayers(p.layers), n
		}
	}
	p.layers = best
}

func copyLayers(layers [][]int) [][]int {
	out := make([][]int, len(layers))
	for i, l := range layers {
		out[i] = slices.Clone(l)
	}
	return out
}

func (p *part) sortLayer(i, other int, neighbors [][]int) {
	at := map[int]int{}
	for pos, v := range p.layers[other] {
		at[v] = pos
	}
	middle := map[int]float64{}
	for pos, v := range p.layers[i] {
		middle[v] = float64(pos)
		if list := neighbors[v]; len(list) > 0 {
			sum := 0
			for _, n := range list {
				sum += at[n]
			}
			middle[v] = float64(sum) / float64(len(list))
		}
	}
	slices.SortStableFunc(p.layers[i], func(a, b int) int { return cmp.Compare(middle[a], middle[b]) })
}

// crossings counts the crossings of edges between adjacent layers.
func (p *part) crossings() int {
	total := 0
	for i := 1; i < len(p.layers); i++ {
		at := map[int]int{}
		for pos, v := range p.layers[i] {
			at[v] = pos
		}
		// Inversions of the right ends, in the order of the left ends, with a Fenwick tree.
		tree, seen := make([]int, len(p.layers[i])+1), 0
		for _, v := range p.layers[i-1] {
			ends := make([]int, 0, len(p.right[v]))
			for _, to := range p.right[v] {
				ends = append(ends, at[to])
			}
			for _, end := range ends {
				upTo := 0
				for k := end + 1; k > 0; k -= k & -k {
					upTo += tree[k]
				}
				total += seen - upTo
			}
			for _, end := range ends {
				for k := end + 1; k < len(tree); k += k & -k {
					tree[k]++
				}
				seen++
			}
		}
	}
	return total
}

// align computes the vertical position of every node and point: near the mean of its neighbors, in the order of its layer, without overlap.
func (p *part) align(s Size) {
	p.y = make([]float64, len(p.layer))
	room := func(a, b int) float64 {
		gap := s.GapY
		if a < len(p.nodes) {
			gap += s.Height / 2
		}
		if b < len(p.nodes) {
			gap += s.Height / 2
		}
		return gap
	}
	for _, l := range p.layers {
		for i := 1; i < len(l); i++ {
			p.y[l[i]] = p.y[l[i-1]] + room(l[i-1], l[i])
		}
	}
	for sweep := range sweeps {
		for k := range p.layers {
			i, neighbors := k, p.left
			if sweep%2 == 1 {
				i, neighbors = len(p.layers)-1-k, p.right
			}
			p.spread(p.layers[i], neighbors, room)
		}
	}
}

// spread moves the nodes of a layer to the mean of their neighbors, and then apart if they overlap: from above and from below, with the mean of
// both results.
func (p *part) spread(layer []int, neighbors [][]int, room func(a, b int) float64) {
	want := make([]float64, len(layer))
	for i, v := range layer {
		want[i] = p.y[v]
		if list := neighbors[v]; len(list) > 0 {
			sum := 0.0
			for _, n := range list {
				sum += p.y[n]
			}
			want[i] = sum / float64(len(list))
		}
	}
	down, up := slices.Clone(want), slices.Clone(want)
	for i := 1; i < len(layer); i++ {
		down[i] = max(down[i], down[i-1]+room(layer[i-1], layer[i]))
	}
	for i := len(layer) - 2; i >= 0; i-- {
		up[i] = min(up[i], up[i+1]-room(layer[i], layer[i+1]))
	}
	for i, v := range layer {
		p.y[v] = (down[i] + up[i]) / 2
	}
}
