package delivery_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/delivery"
)

// coarser are the chains whose root is found by what refers to an object from behind, such as the Pods of a Deployment. With the
// objects that are not ready and what they refer to alone, the root is an object nearer to Flux.
var coarser = map[string]string{
	"backup-location":                 "nothing of Flux waits for the location",
	"crd-held-by-instance":            "the instances of the CRD are not listed",
	"crd-held-controller-alive":       "the instances of the CRD are not listed",
	"crd-held-controller-down":        "the instances of the CRD are not listed",
	"crd-held-controller-unknown":     "the instances of the CRD are not listed",
	"create-in-terminating-crd":       "CRDs are not listed, and the message names the kind only",
	"dead-webhook":                    "webhook configurations are not listed, and the message names the Service",
	"missing-behind-suspended-parent": "only the inventory of the parent, which is ready, names the missing object",
	"missing-config-of-workload":      "a ConfigMap is found by the Pod, and Pods are not listed",
	"missing-external-secret":         "the ExternalSecret has another name than its Secret",
	"starved":                         "the Kustomizations that occupy the workers are ready",
	"webhook-server-not-ready":        "the workloads behind a Service are not listed",
}

// onDemand returns the input with only those objects of the cluster that an informer has and that are not ready. All others are
// looked up.
func onDemand(in *delivery.Input) *delivery.Input {
	byRef := map[delivery.Ref]*unstructured.Unstructured{}
	out := &delivery.Input{Now: in.Now}
	for _, o := range in.Objects {
		ref := delivery.RefOf(o)
		if strings.HasSuffix(ref.Group, ".toolkit.fluxcd.io") {
			byRef[ref] = o.DeepCopy()
			unstructured.RemoveNestedField(byRef[ref].Object, "status", "inventory")
		} else {
			byRef[ref] = o
		}
		informed := strings.HasSuffix(ref.Group, ".toolkit.fluxcd.io") || ref.Kind == "Namespace" || ref.Group == "postgresql.cnpg.io"
		if informed && delivery.StateOf(o) != delivery.Ready {
			out.Objects = append(out.Objects, byRef[ref])
		}
	}
	looked := map[delivery.Ref]bool{}
	out.Get = func(ref delivery.Ref) (*unstructured.Unstructured, bool) {
		if looked[ref] {
			panic("looked up twice: " + ref.String())
		}
		looked[ref] = true
		return byRef[ref], byRef[ref] != nil || in.Complete != nil && in.Complete(ref.GroupKind())
	}
	out.Inventory = func(ref delivery.Ref) *unstructured.Unstructured {
		for _, o := range in.Objects {
			if delivery.RefOf(o) == ref {
				return o
			}
		}
		return nil
	}
	return out
}

// TestAnalyze_OnDemand looks the objects up that the others refer to, as the background audit does: the roots are the same, but for
// those of coarser, and never is a root among what is ready.
func TestAnalyze_OnDemand(t *testing.T) {
	for _, file := range chains(t) {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			in, _ := readChain(t, file)
			whole, part := delivery.Analyze(in), delivery.Analyze(onDemand(in))
			var got, want []string
			ready := map[delivery.Ref]bool{}
			for _, o := range in.Objects {
				ready[delivery.RefOf(o)] = true
			}
			for _, root := range whole.Roots {
				delete(ready, root.Object)
				if root.State.Certain() {
					want = append(want, string(root.Cause)+" "+root.Object.String())
				}
			}
			for _, o := range whole.Objects {
				delete(ready, o.Object)
			}
			for _, root := range part.Roots {
				if root.State.Certain() {
					got = append(got, string(root.Cause)+" "+root.Object.String())
					if ready[root.Object] && root.Cause != delivery.CauseWebhook {
						t.Errorf("%s is a root, but it is ready", root.Object)
					}
				}
			}
			slices.Sort(want)
			slices.Sort(got)
			diff := cmp.Diff(want, got)
			if why := coarser[name]; why != "" && diff == "" {
				t.Errorf("it has the same roots, although %s", why)
			} else if why == "" && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
