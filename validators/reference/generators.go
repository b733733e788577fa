package reference

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/boundedregexp"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// generator is a kind of objects from which an operator creates other objects.
type generator struct {
	gk schema.GroupKind
	// names returns the names of the created objects.
	names func(*unstructured.Unstructured) []string
	// anyNamespace means that the created objects may be in any namespace, not only in the generator's.
	anyNamespace bool
}

func (g generator) list(ctx context.Context, look validators.Lookup, namespace string) []*unstructured.Unstructured {
	if g.anyNamespace {
		namespace = ""
	}
	list, _, _ := look.List(ctx, g.gk, namespace)
	return list
}

// generatorKinds returns the kinds of all generators.
func generatorKinds() []schema.GroupKind {
	var out []schema.GroupKind
	for _, g := range generatorsOf(secret) {
		if !slices.Contains(out, g.gk) {
			out = append(out, g.gk)
		}
	}
	return out
}

// generatorsOf returns the generators of objects of a kind.
func generatorsOf(to schema.GroupKind) []generator {
	switch to {
	case secret:
		return []generator{
			{gk: externalSecret, names: func(o *unstructured.Unstructured) []string { return externalTarget(o, "spec") }},
			{
				gk:           clusterExternalSecret,
				names:        func(o *unstructured.Unstructured) []string { return externalTarget(o, "spec", "externalSecretSpec") },
				anyNamespace: true,
			},
			{gk: sealedSecret, names: func(o *unstructured.Unstructured) []string {
				return []string{field(o, o.GetName(), "spec", "template", "metadata", "name")}
			}},
			{
				gk:    certificate,
				names: func(o *unstructured.Unstructured) []string { return []string{field(o, "", "spec", "secretName")} },
			},
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
			{gk: infisicalSecret, names: infisicalTargets, anyNamespace: true},
			{gk: onePasswordItem, names: ownName},
			{gk: trustBundle, names: ownName, anyNamespace: true},
			{gk: secret, names: mirrored, anyNamespace: true},
			{gk: certificate, names: mirroredTemplate("spec", "secretTemplate", "annotations"), anyNamespace: true},
			{gk: externalSecret, names: mirroredTemplate("spec", "target", "template", "metadata", "annotations"), anyNamespace: true},
			{gk: sealedSecret, names: mirroredTemplate("spec", "template", "metadata", "annotations"), anyNamespace: true},
			{gk: job, names: jobSecrets},
			{gk: clusterPolicy, names: kyvernoNames(to), anyNamespace: true},
			{gk: kyvernoPolicy, names: kyvernoNames(to)},
		}
	case configMap:
		return []generator{
			{gk: bucketClaim, names: ownName},
			{gk: trustBundle, names: ownName, anyNamespace: true},
			{gk: configMap, names: mirrored, anyNamespace: true},
			{gk: clusterPolicy, names: kyvernoNames(to), anyNamespace: true},
			{gk: kyvernoPolicy, names: kyvernoNames(to)},
		}
	}
	return nil
}

// generated reports whether an object of the tree creates the referenced one.
func generated(ctx context.Context, p *validators.Pass, r reference) bool {
	look := p.Lookup
	switch r.to {
	case volumeClaim:
		return claimOfStatefulSet(ctx, look, r.key)
	case storageClass:
		return definedOtherwise(ctx, p, r.key.Name)
	case issuer, clusterIssuer:
		return issuerOfValues(ctx, p, r)
	}
	return Generated(ctx, look, r.to, r.key)
}

// Generated reports whether an operator or a Job creates the object, by what the Lookup knows of the objects that it
// creates it from.
func Generated(ctx context.Context, look validators.Lookup, to schema.GroupKind, key types.NamespacedName) bool {
	named := func(o *unstructured.Unstructured, g generator) bool {
		return slices.ContainsFunc(g.names(o), func(name string) bool { return matchesName(ctx, name, key.Name) })
	}
	for _, g := range generatorsOf(to) {
		// Most generated objects have their generator's name, and one object is found faster than all.
		if !g.anyNamespace {
			if o, presence, _ := look.Get(ctx, g.gk, key); presence == validators.Present && named(o, g) {
				return true
			}
		}
	}
	for _, g := range generatorsOf(to) {
		for _, o := range g.list(ctx, look, key.Namespace) {
			if named(o, g) {
				return true
			}
		}
	}
	return false
}

// matchesName reports whether a name that may hold unresolved variables can be the wanted one.
func matchesName(ctx context.Context, name, want string) bool {
	if !unresolved.HasVariable(name) {
		return name == want
	}
	parts := variable.Split(name, -1)
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	re, err := boundedregexp.Compile("^" + strings.Join(parts, ".*") + "$")
	if err != nil {
		return true // it may be
	}
	matched, err := re.Match(ctx, want)
	return err != nil || matched
}

// variable is a variable of a Kustomization's substitution that has no known value.
var variable = regexp.MustCompile(`\$\{[^{}]*\}`)

// jobSecrets returns the Secrets that a Job writes, as kube-webhook-certgen does: --secret-name=NAME.
func jobSecrets(o *unstructured.Unstructured) []string {
	var out []string
	containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
	for _, item := range containers {
		m, _ := item.(map[string]any)
		for _, key := range []string{"command", "args"} {
			args, _, _ := unstructured.NestedStringSlice(m, key)
			for i, arg := range args {
				flag, value, ok := strings.Cut(arg, "=")
				if flag != "--secret-name" {
					continue
				}
				if !ok && i+1 < len(args) {
					value = args[i+1]
				}
				out = append(out, value)
			}
		}
	}
	return out
}

// issuerOfValues reports whether the values of a release define the issuer, in the usual form {kind: ClusterIssuer,
// name: NAME} or as an object, so that its chart creates it.
func issuerOfValues(ctx context.Context, p *validators.Pass, r reference) bool {
	var defined func(key string, v any) bool
	defined = func(key string, v any) bool {
		switch v := v.(type) {
		case []any:
			return slices.ContainsFunc(v, func(item any) bool { return defined(key, item) })
		case map[string]any:
			name, _ := v["name"].(string)
			if metadata, ok := v["metadata"].(map[string]any); ok && name == "" {
				name, _ = metadata["name"].(string)
			}
			kind, ok := v["kind"].(string)
			refers := strings.HasSuffix(strings.ToLower(key), "ref")
			if name == r.key.Name && !refers && (kind == r.to.Kind || !ok && strings.Contains(strings.ToLower(key), "issuer")) {
				return true
			}
			for key, item := range v {
				if defined(key, item) {
					return true
				}
			}
		}
		return false
	}
	for _, o := range releases(ctx, p) {
		if r.key.Namespace != "" && effectiveNamespace(o) != r.key.Namespace {
			continue
		}
		if slices.ContainsFunc(valuesOf(ctx, p, o, strings.ToLower(r.key.Name)), func(values any) bool { return defined("", values) }) {
			return true
		}
	}
	return false
}

// field returns the string at a path of fields, or its default.
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

// externalTarget returns the Secret of an ExternalSecret whose spec is at the path. With the policies Merge and None it
// creates none.
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

// kyvernoNames returns a function with the names of the objects of a kind that the generate rules of a Kyverno policy
// create, one by one or cloned from a list.
func kyvernoNames(to schema.GroupKind) func(*unstructured.Unstructured) []string {
	return func(o *unstructured.Unstructured) []string {
		var out []string
		rules, _, _ := unstructured.NestedSlice(o.Object, "spec", "rules")
		for _, item := range rules {
			rule, _ := item.(map[string]any)
			generate, _ := rule["generate"].(map[string]any)
			each, _ := generate["foreach"].([]any)
			for _, g := range append(each, generate) {
				m, _ := g.(map[string]any)
				name, _ := m["name"].(string)
				if m["kind"] == to.Kind && name != "" {
					out = append(out, kyvernoVariable.ReplaceAllString(name, "$${x}"))
				}
				kinds, _, _ := unstructured.NestedStringSlice(m, "cloneList", "kinds")
				for _, kind := range kinds {
					if strings.HasSuffix(kind, "/"+to.Kind) {
						out = append(out, "${x}") // those with the labels of its selector
					}
				}
			}
		}
		return out
	}
}

// kyvernoVariable is a variable in a Kyverno policy.
var kyvernoVariable = regexp.MustCompile(`\{\{[^{}]*\}\}`)

// mirrored returns the object's name if a common controller copies it to other namespaces.
func mirrored(o *unstructured.Unstructured) []string {
	if copied(o.GetAnnotations()) {
		return []string{o.GetName()}
	}
	return nil
}

// mirroredTemplate returns the function for objects from which an operator creates a Secret with the annotations at the
// path.
func mirroredTemplate(path ...string) func(*unstructured.Unstructured) []string {
	return func(o *unstructured.Unstructured) []string {
		annotations, _, _ := unstructured.NestedStringMap(o.Object, path...)
		if !copied(annotations) {
			return nil
		}
		name := field(o, field(o, o.GetName(), "spec", "target", "name"), "spec", "secretName")
		return []string{name}
	}
}

// copied reports whether the annotations tell a common controller to copy the object to other namespaces.
func copied(annotations map[string]string) bool {
	for name := range annotations {
		if strings.HasPrefix(name, "reflector.v1.k8s.emberstack.com/reflection-auto-enabled") ||
			strings.HasPrefix(name, "replicator.v1.mittwald.de/replicate-to") {
			return true
		}
	}
	return false
}

// claimOfStatefulSet reports whether a claim has a name that a StatefulSet gives: template-set-0.
func claimOfStatefulSet(ctx context.Context, look validators.Lookup, key types.NamespacedName) bool {
	list, _, _ := look.List(ctx, statefulSet, key.Namespace)
	for _, o := range list {
		templates, _, _ := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
		for _, item := range templates {
			m, _ := item.(map[string]any)
			if name, _, _ := unstructured.NestedString(
				m,
				"metadata",
				"name",
			); strings.HasPrefix(
				key.Name,
				name+"-"+o.GetName()+"-",
			) {
				return true
			}
		}
	}
	return false
}
