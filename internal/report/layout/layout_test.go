package layout_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/flux-admission/flux-admission/internal/report/layout"
)

var size = layout.Size{Width: 100, Height: 20, GapX: 50, GapY: 10, Columns: 3}

func TestPlace(t *testing.T) {
	for name, tc := range map[string]struct {
		n     int
		edges []layout.Edge
		want  []layout.Point
	}{
		"what is waited for stands left of what waits":      {2, []layout.Edge{{From: 1, To: 0}}, []layout.Point{{X: 0, Y: 0}, {X: 150, Y: 0}}},
		"a chain makes a row":                               {3, []layout.Edge{{From: 0, To: 1}, {From: 1, To: 2}}, []layout.Point{{X: 300}, {X: 150}, {X: 0}}},
		"one that is waited for twice stands between":       {3, []layout.Edge{{From: 1, To: 0}, {From: 2, To: 0}}, []layout.Point{{X: 0, Y: 15}, {X: 150, Y: 0}, {X: 150, Y: 30}}},
		"a cycle is drawn all the same":                     {2, []layout.Edge{{From: 0, To: 1}, {From: 1, To: 0}}, []layout.Point{{X: 0, Y: 0}, {X: 150, Y: 0}}},
		"nodes without edges stand in rows":                 {4, nil, []layout.Point{{X: 0}, {X: 110}, {X: 220}, {X: 0, Y: 30}}},
		"an edge to itself and one to nothing are left out": {1, []layout.Edge{{From: 0, To: 0}, {From: 0, To: 9}}, []layout.Point{{}}},
		"nothing takes no room":                             {0, nil, []layout.Point{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := layout.Position(tc.n, tc.edges, size).Nodes; !reflect.DeepEqual(got, tc.want) {
				t.Errorf("nodes at %v, want %v", got, tc.want)
			}
		})
	}
}

func TestAnEdgeOverTwoLayersPassesBesideTheNodeBetween(t *testing.T) {
	p := layout.Position(3, []layout.Edge{{From: 1, To: 0}, {From: 2, To: 1}, {From: 2, To: 0}}, size)
	long := p.Routes[2]
	if len(long) != 4 {
		t.Fatalf("route %v, want 4 points", long)
	}
	if y := long[1].Y; y >= p.Nodes[1].Y && y <= p.Nodes[1].Y+size.Height {
		t.Errorf("the edge passes at %v, through the node at %v", y, p.Nodes[1].Y)
	}
}

// Whatever the graph: nodes do not overlap, everything is within the picture, edges that close no cycle run to the right, and the same graph
// gives the same picture.
func FuzzPlace(f *testing.F) {
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
		p := layout.Position(n, edges, size)
		if !reflect.DeepEqual(p, layout.Position(n, edges, size)) {
			t.Fatal("two pictures of one graph differ")
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

func BenchmarkPlace(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var edges []layout.Edge
			for i := 1; i < n; i++ {
				for k := 1; k <= i%4; k++ {
					edges = append(edges, layout.Edge{From: i, To: i / (k + 1)})
				}
			}
			for b.Loop() {
				layout.Position(n, edges, size)
			}
		})
	}
}
