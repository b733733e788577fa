package layout_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/report/layout"
)

var size = layout.Size{Width: 100, Height: 20, GapX: 50, GapY: 10, Columns: 3}

func TestCompute(t *testing.T) {
	for name, tc := range map[string]struct {
		n     int
		edges []layout.Edge
		want  []layout.Point
	}{
		"a dependency is left of its dependent":      {2, []layout.Edge{{From: 1, To: 0}}, []layout.Point{{X: 0, Y: 0}, {X: 150, Y: 0}}},
		"a chain is a row":                           {3, []layout.Edge{{From: 0, To: 1}, {From: 1, To: 2}}, []layout.Point{{X: 300}, {X: 150}, {X: 0}}},
		"a dependency of two is between them":        {3, []layout.Edge{{From: 1, To: 0}, {From: 2, To: 0}}, []layout.Point{{X: 0, Y: 15}, {X: 150, Y: 0}, {X: 150, Y: 30}}},
		"a cycle has a layout":                       {2, []layout.Edge{{From: 0, To: 1}, {From: 1, To: 0}}, []layout.Point{{X: 0, Y: 0}, {X: 150, Y: 0}}},
		"nodes without edges are in rows":            {4, nil, []layout.Point{{X: 0}, {X: 110}, {X: 220}, {X: 0, Y: 30}}},
		"edges to itself and to no node are ignored": {1, []layout.Edge{{From: 0, To: 0}, {From: 0, To: 9}}, []layout.Point{{}}},
		"no nodes": {0, nil, []layout.Point{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, layout.Compute(tc.n, tc.edges, size).Nodes); diff != "" {
				t.Errorf("nodes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompute_RouteAvoidsNodes(t *testing.T) {
	p := layout.Compute(3, []layout.Edge{{From: 1, To: 0}, {From: 2, To: 1}, {From: 2, To: 0}}, size)
	long := p.Routes[2]
	if len(long) != 4 {
		t.Fatalf("route %v, want 4 points", long)
	}
	if y := long[1].Y; y >= p.Nodes[1].Y && y <= p.Nodes[1].Y+size.Height {
		t.Errorf("the edge passes at %v, through the node at %v", y, p.Nodes[1].Y)
	}
}

// For any graph, nodes do not overlap, everything is within the bounds, edges run to the right unless they close a cycle, and the layout is
// deterministic.
func FuzzCompute(f *testing.F) {
	f.Add(uint64(1), 30, 40)
	f.Add(uint64(2), 5, 20)
	f.Add(uint64(3), 60, 10)
	f.Fuzz(func(t *testing.T, seed uint64, n, m int) {
		if n < 0 || n > 80 || m < 0 || m > 200 {
			return
		}
		r := rand.New(rand.NewPCG(seed, 0))
		var edges []layout.Edge
		for range m {
			edges = append(edges, layout.Edge{From: r.IntN(n + 1), To: r.IntN(n + 1)})
		}
		p := layout.Compute(n, edges, size)
		if diff := cmp.Diff(p, layout.Compute(n, edges, size)); diff != "" {
			t.Fatalf("two layouts of one graph differ:\n%s", diff)
		}
		for i, a := range p.Nodes {
			if a.X < -0.01 || a.Y < -0.01 || a.X+size.Width > p.Width+0.01 || a.Y+size.Height > p.Height+0.01 {
				t.Fatalf("node %d at %v is outside of %v x %v", i, a, p.Width, p.Height)
			}
			for j, b := range p.Nodes[:i] {
				if a.X < b.X+size.Width && b.X < a.X+size.Width && a.Y < b.Y+size.Height-0.01 && b.Y < a.Y+size.Height-0.01 {
					t.Fatalf("nodes %d at %v and %d at %v overlap", i, a, j, b)
				}
			}
		}
		for i, e := range edges {
			if p.Routes[i] == nil || p.Back[i] {
				continue
			}
			if p.Nodes[e.From].X <= p.Nodes[e.To].X {
				t.Fatalf("edge %v runs to the left", e)
			}
		}
	})
}

func BenchmarkCompute(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var edges []layout.Edge
			for i := 1; i < n; i++ {
				for k := 1; k <= i%4; k++ {
					edges = append(edges, layout.Edge{From: i, To: i / (k + 1)})
				}
			}
			for b.Loop() {
				layout.Compute(n, edges, size)
			}
		})
	}
}
