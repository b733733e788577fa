package kustomization

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/resourceset"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

var errEncrypted = errors.New("encrypted with SOPS")

// Lookup returns the rules' view of the cluster. An object that is not in the tree is Absent when the cluster is
// complete, else Unknown. When remote resources were left out, only Flux's own kinds are Absent, and objects in a
// namespace that none of the remote resources is in: any other object may be one of them. An encrypted object is
// Unknown. Objects that a Kustomization applies to another cluster (spec.kubeConfig) are left out. Charts may be nil.
func (c *Cluster) Lookup(charts lookup.Charts) validators.Lookup {
	l := &partialLookup{
		Memory: &lookup.Memory{Complete: c.Complete, Charts: charts, Builds: newBuilds(c)}, owners: map[string]bool{},
	}
	for _, o := range c.Objects {
		if o.Kustomization != nil && o.Kustomization.RemoteCluster() {
			continue
		}
		l.Add(o.Unstructured)
		if url, _, _ := unstructured.NestedString(o.Object, "spec", "url"); o.GroupVersionKind().Group == flux.GitRepository.Group && url != "" {
			l.owners[ownerOf(url)] = o.GetKind() == flux.GitRepository.Kind || l.owners[ownerOf(url)]
		}
		if o.Encrypted {
			l.Hide(o.GroupVersionKind().GroupKind(), types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, errEncrypted)
		}
	}
	l.secretSources, l.operated = map[string][]secretSource{}, map[string]*Object{}
	for _, o := range c.Objects {
		hideConnectionSecret(l.Memory, o)
		if installsWorkloads(o) && l.operated[o.GetNamespace()] == nil {
			l.operated[o.GetNamespace()] = o
		}
		if m, ok := secretSourceOf(o); ok {
			l.secretSources[o.GetNamespace()] = append(l.secretSources[o.GetNamespace()], m)
		}
	}
	l.addBootstrap(c)
	for _, k := range c.Kustomizations {
		if !k.RemoteCluster() {
			l.uncertain = append(l.uncertain, k.uncertain...)
		}
		for _, p := range k.Problems {
			if p.Kind == validators.ProblemRemoteBase && !k.RemoteCluster() {
				l.remote = append(l.remote, remoteResource{address: p.Name, namespace: k.Spec.TargetNamespace})
			}
		}
	}
	return l
}

// bootstrapKinds are the kinds that a person creates before Flux runs and that other objects refer to.
var bootstrapKinds = []string{"Namespace", "Secret", "ConfigMap", "ServiceAccount"}

// addBootstrap adds the objects that a person applies before Flux runs, and the namespaces of the entry points: Flux
// would not run without them. Objects of Flux's own kinds are left out: where they count, they are entry points.
func (l *partialLookup) addBootstrap(c *Cluster) {
	for _, e := range c.roots {
		key := types.NamespacedName{Name: e.Key.Namespace}
		if gk := (schema.GroupKind{Kind: "Namespace"}); key.Name != "" && !l.Has(gk, key) {
			o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": gk.Kind}}
			o.SetName(key.Name)
			l.Add(o)
		}
	}
	if c.bootstrap == nil {
		return
	}
	l.anywhere = map[validators.ObjectRef]bool{}
	for _, o := range c.bootstrap.Objects {
		gk, key := o.GroupVersionKind().GroupKind(), types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
		switch {
		case gk.Group != "" || !slices.Contains(bootstrapKinds, gk.Kind) || l.Has(gk, key):
		case key.Namespace == "" && gk.Kind != "Namespace":
			l.anywhere[validators.ObjectRef{Kind: gk.Kind, Name: key.Name}] = true
		default:
			l.Add(o)
			if unresolved.IsEncryptedObject(o.Object) {
				l.Hide(gk, key, errEncrypted)
			}
		}
	}
}

// hideConnectionSecret makes the Secret Unknown that a controller writes for an object: Crossplane's convention for any
// kind is spec.writeConnectionSecretToRef. What keys it has is not known.
func hideConnectionSecret(m *lookup.Memory, o *Object) {
	spec, _ := o.Object["spec"].(map[string]any)
	ref, _ := spec["writeConnectionSecretToRef"].(map[string]any)
	name, _ := ref["name"].(string)
	namespace, _ := ref["namespace"].(string)
	if name == "" || o.Kustomization != nil && o.Kustomization.RemoteCluster() {
		return
	}
	if namespace == "" {
		namespace = o.GetNamespace()
	}
	gk, key := schema.GroupKind{Kind: "Secret"}, types.NamespacedName{Namespace: namespace, Name: name}
	if !m.Has(gk, key) {
		m.Hide(gk, key, fmt.Errorf("%s has it written", o))
	}
}

// partialLookup is a Memory in which remote resources are missing.
type partialLookup struct {
	*lookup.Memory
	// remote are the remote resources that were left out.
	remote []remoteResource
	// owners are the owners of the repositories that the cluster's sources name: what comes from them may be anything.
	owners map[string]bool
	// uncertain are the ResourceSets of which not all objects are known.
	uncertain []*Object
	// secretSources are the objects whose controllers may create Secrets, by their namespace.
	secretSources map[string][]secretSource
	// operated are objects whose controllers may install workloads, with ServiceAccounts, by their namespace.
	operated map[string]*Object
	// anywhere are the bootstrap objects whose namespace is not known, by kind and name.
	anywhere map[validators.ObjectRef]bool
}

// missing returns the reason why an object of the kind may exist although it is not in the tree; nil when it cannot.
// The namespace is empty for cluster-scoped objects, and for all namespaces; the name is empty for a list.
func (l *partialLookup) missing(gk schema.GroupKind, namespace, name string) error {
	if l.anywhere[validators.ObjectRef{Kind: gk.Kind, Name: name}] && gk.Group == "" {
		return errors.New("a bootstrap manifest without a namespace creates it")
	}
	for _, set := range l.uncertain {
		if resourceset.MayCreate(set.Unstructured, gk.Kind) {
			return fmt.Errorf("%s may create it, with inputs or templates that are not known here", set)
		}
	}
	if strings.HasSuffix(gk.Group, fluxGroups) {
		return nil
	}
	if gk == (schema.GroupKind{Kind: "Secret"}) {
		for _, m := range l.secretSources[namespace] {
			if m.mayCreate(name) {
				return fmt.Errorf("%s may have it made", m.object)
			}
		}
	}
	if gk == (schema.GroupKind{Kind: "ConfigMap"}) && validators.IsClusterConfigMap(name) {
		return errors.New("the cluster has it in each namespace")
	}
	if gk == (schema.GroupKind{Kind: "ServiceAccount"}) && l.operated[namespace] != nil {
		return fmt.Errorf("the controller of %s may create it", l.operated[namespace])
	}
	if namespace == metav1.NamespaceSystem && name != "" {
		return errors.New("the cluster's own installation may create it")
	}
	n, unlikely := 0, ""
	for _, r := range l.remote {
		switch {
		case namespace != "" && r.namespace != "" && r.namespace != namespace:
		case name == "" || l.owners[ownerOf(r.address)] || r.mayHave(name):
			n++
		default:
			unlikely = r.address
		}
	}
	switch {
	case n > 0:
		return fmt.Errorf("it may be among %d remote resources that were not evaluated", n)
	case unlikely != "":
		return &validators.Unlikely{Text: "the remote resource " + unlikely + ", which was not evaluated"}
	}
	return nil
}

// Get implements validators.Lookup.
func (l *partialLookup) Get(ctx context.Context, gk schema.GroupKind, key types.NamespacedName) (*unstructured.Unstructured, validators.Presence, error) {
	o, p, err := l.Memory.Get(ctx, gk, key)
	if missing := l.missing(gk, key.Namespace, key.Name); p == validators.Absent && missing != nil {
		return nil, validators.Unknown, fmt.Errorf("%s %s: %w", gk.Kind, key, missing)
	}
	return o, p, err
}

// List implements validators.Lookup.
func (l *partialLookup) List(ctx context.Context, gk schema.GroupKind, namespace string) ([]*unstructured.Unstructured, validators.Presence, error) {
	list, p, err := l.Memory.List(ctx, gk, namespace)
	if missing := l.missing(gk, namespace, ""); p == validators.Present && missing != nil {
		return list, validators.Unknown, fmt.Errorf("list of %s: %w", gk.Kind, missing)
	}
	return list, p, err
}

// Namespace implements validators.Lookup.
func (l *partialLookup) Namespace(ctx context.Context, name string) (*unstructured.Unstructured, validators.Presence, error) {
	return l.Get(ctx, schema.GroupKind{Kind: "Namespace"}, types.NamespacedName{Name: name})
}
