package reference

import (
	"context"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// reference is a field with the name of another object.
type reference struct {
	at  validators.Path
	to  schema.GroupKind
	key types.NamespacedName
	// data are the fields with keys of the object's data that have to be there.
	data []dataKey
	// sets are the sets of keys of which the object's data has to have one; empty for any.
	sets keySets
	// byHand means that a person may create the object by hand: that it is missing is not reported.
	byHand bool
}

// dataKey is a field with a key of a Secret or ConfigMap.
type dataKey struct {
	at   validators.Path
	name string
}

// String returns the kind and the key, for messages.
func (r reference) String() string {
	if r.key.Namespace == "" {
		return r.to.Kind + " " + r.key.Name
	}
	return r.to.Kind + " " + r.key.String()
}

// collector collects the references of an object, each target once.
type collector struct {
	pass *validators.Pass
	root map[string]any
	out  []reference
	seen map[string]int // index in out, plus one
}

// references returns the references of an object, in the order of its fields.
func references(ctx context.Context, p *validators.Pass) []reference {
	c := &collector{pass: p, root: p.Object.Object, seen: map[string]int{}}
	spec := validators.NewPath("spec")
	gk := p.Object.GroupVersionKind().GroupKind()
	namespace := p.Object.GetNamespace()
	switch gk {
	case schema.GroupKind{Kind: "Pod"}:
		c.pod(spec)
	case schema.GroupKind{Kind: "ReplicationController"},
		schema.GroupKind{Group: "apps", Kind: "Deployment"},
		schema.GroupKind{Group: "apps", Kind: "DaemonSet"},
		schema.GroupKind{Group: "apps", Kind: "ReplicaSet"},
		schema.GroupKind{Group: "batch", Kind: "Job"}:
		c.pod(spec.Child("template", "spec"))
	case statefulSet:
		c.pod(spec.Child("template", "spec"))
		c.each(spec.Child("volumeClaimTemplates"), func(at validators.Path) { c.class(at.Child("spec", "storageClassName")) })
	case schema.GroupKind{Group: "batch", Kind: "CronJob"}:
		c.pod(spec.Child("jobTemplate", "spec", "template", "spec"))
	case volumeClaim, bucketClaim:
		c.class(spec.Child("storageClassName"))
	case roleBinding, clusterRoleBinding:
		c.binding()
	case externalSecret:
		c.store(spec.Child("secretStoreRef"))
		c.each(spec.Child("data"), func(at validators.Path) { c.store(at.Child("sourceRef", "storeRef")) })
		c.each(spec.Child("dataFrom"), func(at validators.Path) { c.store(at.Child("sourceRef", "storeRef")) })
	case certificate:
		c.issuer(spec.Child("issuerRef"))
	case schema.GroupKind{Group: "networking.k8s.io", Kind: "Ingress"}:
		c.ingress()
	case flux.Kustomization:
		c.add(spec.Child("serviceAccountName"), serviceAccount, namespace)
		c.keys(spec, namespace)
		c.each(spec.Child("postBuild", "substituteFrom"), func(at validators.Path) {
			kinds := map[any]schema.GroupKind{"ConfigMap": configMap, "Secret": secret}
			if to, ok := kinds[at.Child("kind").Lookup(c.root)]; ok && !c.optional(at) {
				c.add(at.Child("name"), to, namespace)
			}
		})
	case flux.HelmRelease:
		c.keys(spec, namespace)
		// With a kubeConfig, the service account and the Pods' objects are in the other cluster.
		if spec.Child("kubeConfig").Lookup(c.root) == nil {
			c.add(spec.Child("serviceAccountName"), serviceAccount, namespace)
			c.values(spec.Child("values"), effectiveNamespace(p.Object))
		}
	case flux.GitRepository,
		flux.OCIRepository,
		flux.HelmRepository,
		flux.Bucket,
		flux.ImageRepository,
		flux.Provider,
		flux.Receiver:
		if !c.bootstraps(ctx) {
			c.credentials(gk, spec, namespace)
			c.add(spec.Child("serviceAccountName"), serviceAccount, namespace)
		}
	default:
		c.cnpg(gk)
	}
	return c.out
}

// bootstraps reports whether the object is the source that it is applied from, which cannot contain its own
// credentials, or one that an entry point creates and that no Kustomization applies: it is applied by hand, with them.
func (c *collector) bootstraps(ctx context.Context) bool {
	if c.pass.Provenance == nil {
		return false
	}
	if c.pass.Provenance.Kustomization.Name == "" {
		return true
	}
	k, presence, _ := c.pass.Lookup.Get(ctx, flux.Kustomization, c.pass.Provenance.Kustomization)
	if presence != validators.Present {
		return false
	}
	source, o := flux.SourceOf(k), c.pass.Object
	return source.Kind == o.GetKind() && source.Name == o.GetName() && source.Namespace == o.GetNamespace()
}

// add adds the reference with the name at the path. Unresolved names are skipped: variables, templates, encrypted
// values.
func (c *collector) add(at validators.Path, to schema.GroupKind, namespace string, keys ...validators.Path) {
	name, _ := at.Lookup(c.root).(string)
	if name == "" || unresolved.HasVariable(name) || unresolved.HasTemplate(name) ||
		slices.ContainsFunc(c.pass.Unresolved, func(o validators.Path) bool { return at.HasPrefix(o) }) {
		return
	}
	switch {
	case to == serviceAccount && name == "default", to == configMap && validators.IsClusterConfigMap(name):
		return // every namespace has one
	case to == storageClass && slices.Contains(providedClasses(), name):
		return
	}
	r := reference{at: at, to: to, key: types.NamespacedName{Namespace: namespace, Name: name}}
	id := r.to.Group + r.String()
	if c.seen[id] == 0 {
		c.out = append(c.out, r)
		c.seen[id] = len(c.out)
	}
	known := &c.out[c.seen[id]-1]
	for _, key := range keys {
		name, _ := key.Lookup(c.root).(string)
		if name != "" && !unresolved.HasVariable(name) && !unresolved.HasTemplate(name) {
			known.data = append(known.data, dataKey{key, name})
		}
	}
}

// needs adds keys that the object at a path of a reference must have, whatever names them.
func (c *collector) needs(at validators.Path, keys ...string) {
	for i := range c.out {
		if c.out[i].at.String() != at.String() {
			continue
		}
		for _, key := range keys {
			c.out[i].data = append(c.out[i].data, dataKey{at, key})
		}
	}
}

// each calls do with the path of each item of the list at a path.
func (c *collector) each(at validators.Path, do func(validators.Path)) {
	list, _ := at.Lookup(c.root).([]any)
	for i := range list {
		do(at.Index(i))
	}
}

func (c *collector) optional(at validators.Path) bool {
	optional, _ := at.Child("optional").Lookup(c.root).(bool)
	return optional
}

// required adds the reference in a field of the map at the path, unless it is optional.
func (c *collector) required(at validators.Path, field string, to schema.GroupKind, namespace string) {
	if !c.optional(at) {
		c.add(at.Child(field), to, namespace)
	}
}

func (c *collector) class(at validators.Path) { c.add(at, storageClass, "") }

// pod adds the references of the PodSpec at the path.
func (c *collector) pod(at validators.Path) {
	namespace := c.pass.Object.GetNamespace()
	for _, containers := range []string{"initContainers", "containers", "ephemeralContainers"} {
		c.each(at.Child(containers), func(container validators.Path) {
			c.each(container.Child("envFrom"), func(from validators.Path) {
				c.required(from.Child("secretRef"), "name", secret, namespace)
				c.required(from.Child("configMapRef"), "name", configMap, namespace)
			})
			c.each(container.Child("env"), func(env validators.Path) {
				for field, to := range map[string]schema.GroupKind{"secretKeyRef": secret, "configMapKeyRef": configMap} {
					if at := env.Child("valueFrom", field); !c.optional(at) {
						c.add(at.Child("name"), to, namespace, at.Child("key"))
					}
				}
			})
		})
	}
	c.each(at.Child("volumes"), func(volume validators.Path) {
		c.volume(volume.Child("secret"), "secretName", secret)
		c.volume(volume.Child("configMap"), "name", configMap)
		c.add(volume.Child("persistentVolumeClaim", "claimName"), volumeClaim, namespace)
		c.class(volume.Child("ephemeral", "volumeClaimTemplate", "spec", "storageClassName"))
		c.each(volume.Child("projected", "sources"), func(source validators.Path) {
			c.volume(source.Child("secret"), "name", secret)
			c.volume(source.Child("configMap"), "name", configMap)
		})
	})
	c.each(at.Child("imagePullSecrets"), func(pull validators.Path) { c.add(pull.Child("name"), secret, namespace) })
	c.add(at.Child("serviceAccountName"), serviceAccount, namespace)
}

// volume adds the reference of a volume's source at a path, with the keys that it mounts.
func (c *collector) volume(at validators.Path, field string, to schema.GroupKind) {
	if c.optional(at) {
		return
	}
	var keys []validators.Path
	c.each(at.Child("items"), func(item validators.Path) { keys = append(keys, item.Child("key")) })
	c.add(at.Child(field), to, c.pass.Object.GetNamespace(), keys...)
}

// store adds the reference of the map at the path to a SecretStore or ClusterSecretStore.
func (c *collector) store(at validators.Path) {
	if at.Child("kind").Lookup(c.root) == clusterSecretStore.Kind {
		c.add(at.Child("name"), clusterSecretStore, "")
		return
	}
	c.add(at.Child("name"), secretStore, c.pass.Object.GetNamespace())
}

// issuer adds a reference to one of cert-manager's own issuers; issuers of other groups are skipped.
func (c *collector) issuer(at validators.Path) {
	if group, _ := at.Child("group").Lookup(c.root).(string); group != "" && group != issuer.Group {
		return
	}
	if at.Child("kind").Lookup(c.root) == clusterIssuer.Kind {
		c.add(at.Child("name"), clusterIssuer, "")
		return
	}
	c.add(at.Child("name"), issuer, c.pass.Object.GetNamespace())
}

// ingress adds the issuer of an Ingress's certificates, or the Secrets with its certificates if there is no issuer.
func (c *collector) ingress() {
	annotations := validators.NewPath("metadata", "annotations")
	namespace := c.pass.Object.GetNamespace()
	c.add(annotations.Child("cert-manager.io/cluster-issuer"), clusterIssuer, "")
	if group := c.pass.Object.GetAnnotations()["cert-manager.io/issuer-group"]; group == "" || group == issuer.Group {
		c.add(annotations.Child("cert-manager.io/issuer"), issuer, namespace)
	}
	for name := range c.pass.Object.GetAnnotations() {
		if strings.HasPrefix(name, "cert-manager.io/") || name == "kubernetes.io/tls-acme" {
			return
		}
	}
	c.each(
		validators.NewPath("spec", "tls"),
		func(at validators.Path) { c.add(at.Child("secretName"), secret, namespace) },
	)
}

// values adds the references in Helm values that have the same form as in Kubernetes: charts copy them into Pods.
func (c *collector) values(at validators.Path, namespace string) {
	switch v := at.Lookup(c.root).(type) {
	case []any:
		for i := range v {
			c.values(at.Index(i), namespace)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			child := at.Child(key)
			switch key {
			case "secretRef", "secretKeyRef":
				c.named(child, secret, namespace)
			case "configMapRef", "configMapKeyRef":
				c.named(child, configMap, namespace)
			case "storageClass", "storageClassName":
				if v[key] != "-" { // no class, in many charts
					c.class(child)
				}
			}
			c.values(child, namespace)
		}
	}
}

// named adds the reference in a map of the values, which may have a namespace of its own.
func (c *collector) named(at validators.Path, to schema.GroupKind, namespace string) {
	if own, _ := at.Child("namespace").Lookup(c.root).(string); own != "" {
		namespace = own
	}
	if !unresolved.HasVariable(namespace) {
		c.required(at, "name", to, namespace)
	}
}

// effectiveNamespace returns the namespace that a HelmRelease is installed in.
func effectiveNamespace(o *unstructured.Unstructured) string {
	if namespace, _, _ := unstructured.NestedString(o.Object, "spec", "targetNamespace"); namespace != "" {
		return namespace
	}
	return o.GetNamespace()
}
