package reference

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

// making is a kind of objects that an operator makes other objects of.
type making struct {
	gk schema.GroupKind
	// names returns the names of what is made of one.
	names func(*unstructured.Unstructured) []string
	// everywhere says that what is made may be in any namespace, not only in the maker's.
	everywhere bool
}

func (m making) list(ctx context.Context, look validators.Lookup, namespace string) []*unstructured.Unstructured {
	if m.everywhere {
		namespace = ""
	}
	list, _, _ := look.List(ctx, m.gk, namespace)
	return list
}

// makers are the kinds that something is made of.
func makers() []schema.GroupKind {
	var out []schema.GroupKind
	for _, m := range maker(secret) {
		out = append(out, m.gk)
	}
	return append(out, trustBundle)
}

// maker returns what makes objects of a kind.
func maker(to schema.GroupKind) []making {
	switch to {
	case secret:
		return []making{
			{gk: externalSecret, names: func(o *unstructured.Unstructured) []string { return externalTarget(o, "spec") }},
			{gk: clusterExternalSecret, names: func(o *unstructured.Unstructured) []string { return externalTarget(o, "spec", "externalSecretSpec") }, everywhere: true},
			{gk: sealedSecret, names: func(o *unstructured.Unstructured) []string {
				return []string{field(o, o.GetName(), "spec", "template", "metadata", "name")}
			}},
			{gk: certificate, names: func(o *unstructured.Unstructured) []string { return []string{field(o, "", "spec", "secretName")} }},
			{gk: cnpgCluster, names: func(o *unstructured.Unstructured) []string {
				var out []string
				for _, suffix := range []string{"-app", "-superuser", "-ca", "-server", "-replication"} {
					out = append(out, o.GetName()+suffix)
				}
				return out
			}},
			{gk: bucketClaim, names: ownName},
			{gk: cephObjectUser, names: func(o *unstructured.Unstructured) []string {
				return []string{"rook-ceph-object-user-" + field(o, "", "spec", "store") + "-" + o.GetName()}
			}},
			{gk: vaultStaticSecret, names: destination},
			{gk: vaultDynamicSecret, names: destination},
			{gk: vaultPKISecret, names: destination},
			{gk: infisicalSecret, names: infisicalTargets, everywhere: true},
			{gk: onePasswordItem, names: ownName},
			{gk: trustBundle, names: ownName, everywhere: true},
			{gk: secret, names: mirrored, everywhere: true},
		}
	case configMap:
		return []making{
			{gk: bucketClaim, names: ownName},
			{gk: trustBundle, names: ownName, everywhere: true},
			{gk: configMap, names: mirrored, everywhere: true},
		}
	}
	return nil
}

// made tells whether something in the tree makes what is named.
func made(ctx context.Context, p *validators.Pass, r reference) bool {
	look := p.Lookup
	switch r.to {
	case volumeClaim:
		return madeByStatefulSet(ctx, look, r.key)
	case storageClass:
		return definedOtherwise(ctx, p, r.key.Name)
	}
	for _, m := range maker(r.to) {
		// What is made mostly has its maker's name, and one object is found faster than all.
		if !m.everywhere {
			if o, presence, _ := look.Get(ctx, m.gk, r.key); presence == validators.Present && slices.Contains(m.names(o), r.key.Name) {
				return true
			}
		}
	}
	for _, m := range maker(r.to) {
		for _, o := range m.list(ctx, look, r.key.Namespace) {
			if slices.Contains(m.names(o), r.key.Name) {
				return true
			}
		}
	}
	return false
}

// field returns the string at a path of fields, or what it defaults to.
func field(o *unstructured.Unstructured, otherwise string, path ...string) string {
	if s, _, _ := unstructured.NestedString(o.Object, path...); s != "" {
		return s
	}
	return otherwise
}

func ownName(o *unstructured.Unstructured) []string { return []string{o.GetName()} }

func destination(o *unstructured.Unstructured) []string {
	return []string{field(o, "", "spec", "destination", "name")}
}

// externalTarget returns the Secret of an ExternalSecret whose spec is at the path. With the policies Merge and None it makes none.
func externalTarget(o *unstructured.Unstructured, spec ...string) []string {
	at := func(fields ...string) []string { return append(append([]string{}, spec...), fields...) }
	if policy := field(o, "", at("target", "creationPolicy")...); policy == "Merge" || policy == "None" {
		return nil
	}
	own := o.GetName()
	if o.GetKind() == clusterExternalSecret.Kind {
		own = field(o, own, "spec", "externalSecretName")
	}
	return []string{field(o, own, at("target", "name")...)}
}

func infisicalTargets(o *unstructured.Unstructured) []string {
	out := []string{field(o, "", "spec", "managedSecretReference", "secretName")}
	list, _, _ := unstructured.NestedSlice(o.Object, "spec", "managedKubeSecretReferences")
	for _, item := range list {
		m, _ := item.(map[string]any)
		name, _ := m["secretName"].(string)
		out = append(out, name)
	}
	return out
}

// mirrored returns the object's name when one of the usual controllers copies it into other namespaces.
func mirrored(o *unstructured.Unstructured) []string {
	for name := range o.GetAnnotations() {
		if strings.HasPrefix(name, "reflector.v1.k8s.emberstack.com/reflection-auto-enabled") || strings.HasPrefix(name, "replicator.v1.mittwald.de/replicate-to") {
			return []string{o.GetName()}
		}
	}
	return nil
}

// madeByStatefulSet tells whether a claim is of the name that a StatefulSet gives to those it makes: template-set-0.
func madeByStatefulSet(ctx context.Context, look validators.Lookup, key types.NamespacedName) bool {
	list, _, _ := look.List(ctx, statefulSet, key.Namespace)
	for _, o := range list {
		templates, _, _ := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
		for _, item := range templates {
			m, _ := item.(map[string]any)
			if name, _, _ := unstructured.NestedString(m, "metadata", "name"); strings.HasPrefix(key.Name, name+"-"+o.GetName()+"-") {
				return true
			}
		}
	}
	return false
}
