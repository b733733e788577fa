package lookup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
)

func decoded(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestStrip(t *testing.T) {
	for name, tc := range map[string]struct{ object, want string }{
		"a HelmRelease keeps what rules read": {
			`{"apiVersion":"helm.toolkit.fluxcd.io/v2","kind":"HelmRelease","metadata":{"name":"a","managedFields":[{"manager":"x"}],
			"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","b":"c"}},
			"spec":{"chartRef":{"name":"x"},"dependsOn":[{"name":"y"}],"values":{"a":1},"valuesFrom":[],"postRenderers":[1]},"status":{"history":[1],"conditions":[]}}`,
			`{"apiVersion":"helm.toolkit.fluxcd.io/v2","kind":"HelmRelease","metadata":{"name":"a","annotations":{"b":"c"}},
			"spec":{"chartRef":{"name":"x"},"dependsOn":[{"name":"y"}],"valuesFrom":[]},"status":{"conditions":[]}}`,
		},
		"a Kustomization loses its inventory": {
			`{"apiVersion":"kustomize.toolkit.fluxcd.io/v1","kind":"Kustomization","metadata":{"name":"a"},"spec":{"path":"./x"},"status":{"inventory":{"entries":[1]}}}`,
			`{"apiVersion":"kustomize.toolkit.fluxcd.io/v1","kind":"Kustomization","metadata":{"name":"a"},"spec":{"path":"./x"},"status":{}}`,
		},
		"a CustomResourceDefinition loses its schemas": {
			`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"a"},"spec":{"group":"b","versions":[{}],"conversion":{}},"status":{}}`,
			`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"a"},"spec":{"group":"b"},"status":{}}`,
		},
		"alerts are read whole, one by one": {
			`{"apiVersion":"monitoring.coreos.com/v1","kind":"PrometheusRule","metadata":{"name":"a"},"spec":{"groups":[]}}`,
			`{"apiVersion":"monitoring.coreos.com/v1","kind":"PrometheusRule","metadata":{"name":"a"}}`,
		},
		"another kind keeps its values": {
			`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a","labels":{"b":"c"}},"spec":{"values":{}}}`,
			`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a","labels":{"b":"c"}},"spec":{"values":{}}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Strip(decoded(t, tc.object))
			if diff := cmp.Diff(decoded(t, tc.want), got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
	tombstone := toolscache.DeletedFinalStateUnknown{Key: "a"}
	if got, err := Strip(tombstone); err != nil || got != any(tombstone) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestStrip_MemoryOfAnInformer has an informer of 5,000 releases with 39 KB of values each.
func TestStrip_MemoryOfAnInformer(t *testing.T) {
	const releases = 5000
	var values strings.Builder
	for i := range 620 {
		fmt.Fprintf(&values, `"key%d":{"enabled":true,"image":"registry.example.com/app:%d"},`, i, i)
	}
	release := func(i int) *unstructured.Unstructured {
		return decoded(t, fmt.Sprintf(`{"apiVersion":"helm.toolkit.fluxcd.io/v2","kind":"HelmRelease","metadata":{"namespace":"apps","name":"r%d","resourceVersion":"%d"},
			"spec":{"interval":"1h","chart":{"spec":{"chart":"app","version":"1.x","sourceRef":{"kind":"HelmRepository","name":"charts"}}},"values":{%s"last":0}}}`, i, i+1, values.String()))
	}
	if n := values.Len(); n < 39_000 {
		t.Fatalf("%d bytes of values", n)
	}
	source := &toolscache.ListWatch{
		ListWithContextFunc: func(context.Context, metav1.ListOptions) (apiruntime.Object, error) {
			return nil, errors.New("the informer lists all objects at once")
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			w := watch.NewFake()
			go func() {
				if options.SendInitialEvents != nil && *options.SendInitialEvents {
					for i := range releases {
						w.Add(release(i))
					}
					w.Action(watch.Bookmark, decoded(t, `{"kind":"HelmRelease","metadata":{"resourceVersion":"9999","annotations":{"k8s.io/initial-events-end":"true"}}}`))
				}
				<-ctx.Done()
				w.Stop()
			}()
			return w, nil
		},
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	informer := toolscache.NewSharedIndexInformer(source, &unstructured.Unstructured{}, 0, toolscache.Indexers{})
	if err := informer.SetTransform(Strip); err != nil {
		t.Fatal(err)
	}
	go informer.RunWithContext(t.Context())
	if !toolscache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) || len(informer.GetStore().ListKeys()) != releases {
		t.Fatalf("%d releases", len(informer.GetStore().ListKeys()))
	}
	took := heap() - before
	t.Logf("%d releases take %.1f MiB", releases, float64(took)/(1<<20))
	// The Deployment's limit is 256 MiB, of which charts may take 96.
	if took > 40<<20 {
		t.Errorf("%d releases take %d bytes, more than 40 MiB", releases, took)
	}
	runtime.KeepAlive(informer)
}
