// Package finalizers has what is known about the controllers that remove finalizers.
package finalizers

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Owner is who removes a finalizer.
type Owner struct {
	// Kubernetes means that a controller of Kubernetes itself does.
	Kubernetes bool
	// Workloads are the usual names of the workload that does; empty if it is not known.
	Workloads []string
}

// OwnerOf returns the owner of a finalizer on an object of an API group.
func OwnerOf(group, finalizer string) Owner {
	switch {
	case strings.HasPrefix(finalizer, "kubernetes.io/"),
		slices.Contains([]string{"foregroundDeletion", "orphan", "kubernetes", "customresourcecleanup.apiextensions.k8s.io"}, finalizer):
		return Owner{Kubernetes: true}
	case finalizer == "finalizers.fluxcd.io":
		return Owner{Workloads: FluxControllers(group)}
	}
	for _, o := range owners {
		if strings.Contains(finalizer, o.part) {
			return Owner{Workloads: o.workloads}
		}
	}
	return Owner{}
}

// Runs reports whether a workload is that of the owner, by its name or by what its labels name.
func (o Owner) Runs(workload *unstructured.Unstructured) bool {
	return slices.ContainsFunc(o.Workloads, func(name string) bool {
		return strings.Contains(workload.GetName(), name) || workload.GetLabels()["app.kubernetes.io/name"] == name
	})
}

// State is what is known about a controller. Time alone never proves that a controller is gone.
type State string

// The states of a controller.
const (
	// Alive: a workload with ready Pods runs it.
	Alive State = "alive"
	// Gone: there is no workload of it.
	Gone State = "gone"
	// Unknown: neither can be shown.
	Unknown State = "unknown"
)

// State returns the state of the owner, with the reason. The workloads are Deployments, StatefulSets and DaemonSets; complete means that
// they are all of the cluster.
func (o Owner) State(workloads []*unstructured.Unstructured, complete bool) (State, string) {
	switch {
	case o.Kubernetes:
		return Unknown, "Kubernetes itself"
	case len(o.Workloads) == 0:
		return Unknown, "the controller of this finalizer is not known"
	}
	down := ""
	for _, w := range workloads {
		if !o.Runs(w) {
			continue
		}
		name := fmt.Sprintf("%s %s/%s", w.GetKind(), w.GetNamespace(), w.GetName())
		if hasReadyPods(w) {
			return Alive, name
		}
		if down == "" {
			down = name
		}
	}
	switch {
	case down != "":
		return Unknown, down + " has no ready Pod"
	case !complete:
		return Unknown, "workloads are not read"
	}
	return Gone, "no workload is named " + strings.Join(o.Workloads, " or ")
}

func hasReadyPods(workload *unstructured.Unstructured) bool {
	for _, field := range []string{"readyReplicas", "numberReady"} {
		if n, _, _ := unstructured.NestedInt64(workload.Object, "status", field); n > 0 {
			return true
		}
	}
	return false
}

// FluxControllers returns the Deployments of Flux that reconcile the kinds of an API group.
func FluxControllers(group string) []string { return controllers[group] }

// controllers are the Deployments of Flux, by the group of the kinds that they reconcile.
var controllers = map[string][]string{
	"kustomize.toolkit.fluxcd.io":    {"kustomize-controller"},
	"helm.toolkit.fluxcd.io":         {"helm-controller"},
	"source.toolkit.fluxcd.io":       {"source-controller"},
	"source.extensions.fluxcd.io":    {"source-watcher"},
	"notification.toolkit.fluxcd.io": {"notification-controller"},
	"image.toolkit.fluxcd.io":        {"image-reflector-controller", "image-automation-controller"},
	"fluxcd.controlplane.io":         {"flux-operator"},
}

// owners are the names of the workloads that remove finalizers, by a part of the finalizer.
var owners = []struct {
	part      string
	workloads []string
}{
	{"snapshot.storage.kubernetes.io/", []string{"snapshot-controller"}},
	{"externalsecrets.external-secrets.io", []string{"external-secrets"}},
	{"external-secrets.io", []string{"external-secrets"}},
	{"cert-manager.io", []string{"cert-manager"}},
	{"cnpg.io", []string{"cnpg", "cloudnative-pg"}},
	{"longhorn.io", []string{"longhorn-manager"}},
	{"ceph.rook.io", []string{"rook-ceph-operator"}},
	{"velero.io", []string{"velero"}},
	{"volsync.backube", []string{"volsync"}},
	{"argoproj.io", []string{"argocd-application-controller"}},
	{"crossplane.io", []string{"crossplane"}},
	{"monitoring.coreos.com", []string{"prometheus-operator"}},
	{"strimzi.io", []string{"strimzi-cluster-operator"}},
	{"cilium.io", []string{"cilium-operator"}},
	{"service.kubernetes.io/load-balancer-cleanup", nil},
	{"zalando.org", []string{"postgres-operator"}},
	{"elbv2.k8s.aws", []string{"aws-load-balancer-controller"}},
	{"ingress.k8s.aws", []string{"aws-load-balancer-controller"}},
	{"karpenter.sh", []string{"karpenter"}},
	{"fluxcd.controlplane.io", []string{"flux-operator"}},
}
