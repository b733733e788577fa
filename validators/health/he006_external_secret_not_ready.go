package health

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// The kinds of External Secrets.
var (
	externalSecretKind     = schema.GroupKind{Group: "external-secrets.io", Kind: "ExternalSecret"}
	secretStoreKind        = schema.GroupKind{Group: "external-secrets.io", Kind: "SecretStore"}
	clusterSecretStoreKind = schema.GroupKind{Group: "external-secrets.io", Kind: "ClusterSecretStore"}
)

// consumerKinds are the kinds of Flux that name Secrets.
var consumerKinds = []schema.GroupKind{
	flux.HelmRelease, flux.Kustomization, flux.GitRepository, flux.OCIRepository, flux.Bucket, flux.HelmRepository,
}

// ExternalSecretNotReady is the rule external-secret-not-ready.
//
// The operator renews lastTransitionTime only when the status of the condition changes. Its message is often no more than "could not
// get secret data from provider", so that the store is looked up: if that is not ready, it is at fault. Which entry is at fault is
// reported if the message names it, or if there is one only. SecretDeleted is what a deletionPolicy asked for.
var ExternalSecretNotReady = &validators.Rule{
	Meta: validators.Meta{
		ID:        "HE006",
		Name:      "external-secret-not-ready",
		Scope:     validators.Scope{Kinds: []schema.GroupKind{externalSecretKind}},
		Stages:    validators.StageAudit,
		Component: Component,
		Severity:  validators.SeverityError,
		Defaults:  validators.Defaults{Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "ExternalSecret is not ready",
			Why: "The Secret of an ExternalSecret that is not ready is missing, or keeps the values that it had. What needs it does " +
				"not start, or uses credentials that the provider no longer accepts.",
			Fix:   "Repair the store or the entry that the message names.",
			Since: "v0.1.0",
		},
		Reads:  slices.Concat([]schema.GroupKind{secretStoreKind, clusterSecretStoreKind}, consumerKinds),
		Params: after(15 * time.Minute),
	},
	Check: checkExternalSecret,
}

func checkExternalSecret(ctx context.Context, p *validators.Pass) error {
	ready := condition.Find(condition.Of(p.Object), "Ready")
	if !ready.Is("False") || ready.Reason == "SecretDeleted" || !p.Elapsed(ready.Since, p.Params.(*AfterParams).after) {
		return nil
	}
	f := p.Report(pathOf(ready).Child("status"), nil, "is not ready since %s: %s", stamp(ready.Since), describe(ready))
	f.Key = "not ready"
	if fault := cmp.Or(storeFault(ctx, p, ready.Message), entryFault(p.Object, ready.Message)); fault != "" {
		f.Message += "; " + fault
	}
	if names := consumers(ctx, p); len(names) > 0 {
		f.Message += fmt.Sprintf("; Secret %s is used by %s", secretOf(p.Object), strings.Join(names, ", "))
	}
	return nil
}

// storeFault returns which store of an ExternalSecret is not ready; empty if none is known not to be.
func storeFault(ctx context.Context, p *validators.Pass, message string) string {
	refs := []any{field(p.Object, "spec", "secretStoreRef")}
	for _, list := range []string{"data", "dataFrom"} {
		items, _ := field(p.Object, "spec", list).([]any)
		for _, item := range items {
			m, _ := item.(map[string]any)
			refs = append(refs, validators.NewPath("sourceRef", "storeRef").Lookup(m))
		}
	}
	for _, ref := range refs {
		m, _ := ref.(map[string]any)
		name, _ := m["name"].(string)
		if name == "" {
			continue
		}
		gk, key := secretStoreKind, types.NamespacedName{Namespace: p.Object.GetNamespace(), Name: name}
		if m["kind"] == clusterSecretStoreKind.Kind {
			gk, key = clusterSecretStoreKind, types.NamespacedName{Name: name}
		}
		if strings.Contains(message, fmt.Sprintf("%s %q is not ready", gk.Kind, name)) {
			return fmt.Sprintf("%s %s is at fault", gk.Kind, name)
		}
		store, presence, _ := p.Lookup.Get(ctx, gk, key)
		switch presence {
		case validators.Unknown:
		case validators.Absent:
			return fmt.Sprintf("%s %s does not exist", gk.Kind, name)
		case validators.Present:
			if c := condition.Find(condition.Of(store), "Ready"); c.Is("False") {
				// What the store reports may be about another namespace.
				return fmt.Sprintf("%s %s is at fault: %s", gk.Kind, name, c.Reason)
			}
		}
	}
	return ""
}

var entryShape = regexp.MustCompile(`spec\.(data|dataFrom)\[(\d+)\]`)

// entryFault returns which entry of an ExternalSecret is at fault; empty if that is not known.
func entryFault(o *unstructured.Unstructured, message string) string {
	data, _ := field(o, "spec", "data").([]any)
	from, _ := field(o, "spec", "dataFrom").([]any)
	if m := entryShape.FindStringSubmatch(message); m != nil {
		i, err := strconv.Atoi(m[2])
		if err != nil || m[1] == "data" && i >= len(data) || m[1] == "dataFrom" && i >= len(from) {
			return ""
		}
		return "the entry " + m[0] + " is at fault" + keyOf(o, m[1], i)
	}
	if !strings.Contains(message, "could not get secret data from provider") || len(data)+len(from) != 1 {
		return ""
	}
	if len(data) == 1 {
		return "the entry spec.data[0] is at fault" + keyOf(o, "data", 0)
	}
	return "the entry spec.dataFrom[0] is at fault" + keyOf(o, "dataFrom", 0)
}

// keyOf returns the key of the provider that an entry reads.
func keyOf(o *unstructured.Unstructured, list string, i int) string {
	for _, at := range []string{"remoteRef", "extract"} {
		key, _ := validators.NewPath("spec", list).Index(i).Child(at, "key").Lookup(o.Object).(string)
		if key != "" {
			return fmt.Sprintf(" (key %q)", key)
		}
	}
	return ""
}

// secretOf returns the name of the Secret that an ExternalSecret creates.
func secretOf(o *unstructured.Unstructured) string {
	return cmp.Or(text(o, "spec", "target", "name"), o.GetName())
}

// maxConsumers limits the consumers that a finding names.
const maxConsumers = 5

// consumers returns the objects of Flux in the namespace that name the Secret of an ExternalSecret.
func consumers(ctx context.Context, p *validators.Pass) []string {
	name := secretOf(p.Object)
	var out []string
	for _, gk := range consumerKinds {
		list, _, _ := p.Lookup.List(ctx, gk, p.Object.GetNamespace())
		for _, o := range list {
			if namesSecret(o.Object["spec"], "spec", name) {
				out = append(out, gk.Kind+" "+o.GetName())
			}
		}
	}
	if len(out) > maxConsumers {
		out = append(out[:maxConsumers], fmt.Sprintf("%d more", len(out)-maxConsumers))
	}
	return out
}

// namesSecret reports whether a part of the spec of an object of Flux names a Secret: as a secretRef, or as an item of the kind Secret
// in valuesFrom or substituteFrom.
func namesSecret(v any, key, name string) bool {
	switch v := v.(type) {
	case map[string]any:
		if v["name"] == name && (strings.HasSuffix(strings.ToLower(key), "secretref") || v["kind"] == "Secret") {
			return true
		}
		for k, inner := range v {
			if k != "values" && k != "patches" && namesSecret(inner, k, name) {
				return true
			}
		}
	case []any:
		for _, item := range v {
			if namesSecret(item, key, name) {
				return true
			}
		}
	}
	return false
}
