package helmrelease

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ReleaseMove is the rule helm-release-move.
//
// For helm-controller a release with another name or namespace is another release: it uninstalls the one in its
// history and installs the new one. If the chart contains a database, its data is lost.
var ReleaseMove = &validators.Rule{
	Meta: validators.Meta{
		ID:       "HR005",
		Name:     "helm-release-move",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Change makes Flux uninstall the Helm release",
			Why: "spec.targetNamespace, spec.storageNamespace and spec.releaseName identify a release. When one of " +
				"them changes, helm-controller uninstalls the installed release, with everything that Helm does " +
				"not keep, and installs a new one.",
			Fix: "Leave the fields unchanged. If you intend to move the release, take a backup first and expect " +
				"downtime.",
			Since: "v0.1.0",
		},
	},
	Check: checkReleaseMove,
}

// identity is what identifies a Helm release.
type identity struct{ name, namespace, storage string }

// identityOf returns the identity of a release, with the defaults of the HelmRelease API: the storage namespace is the
// HelmRelease's own, the target namespace too, and the name is the HelmRelease's, after the target namespace where that
// is set.
func identityOf(o *unstructured.Unstructured) identity {
	get := func(field string) string {
		s, _, _ := unstructured.NestedString(o.Object, "spec", field)
		return s
	}
	id := identity{name: get("releaseName"), namespace: get("targetNamespace"), storage: get("storageNamespace")}
	if id.name == "" {
		id.name = o.GetName()
		if id.namespace != "" {
			id.name = id.namespace + "-" + o.GetName()
		}
	}
	if id.namespace == "" {
		id.namespace = o.GetNamespace()
	}
	if id.storage == "" {
		id.storage = o.GetNamespace()
	}
	return id
}

func checkReleaseMove(_ context.Context, p *validators.Pass) error {
	if p.Old == nil {
		return nil
	}
	before, after := identityOf(p.Old), identityOf(p.Object)
	if before == after {
		return nil
	}
	installed := ""
	history, _, _ := unstructured.NestedSlice(p.Old.Object, "status", "history")
	if len(history) == 0 {
		return nil // nothing has been installed yet
	}
	if last, ok := history[0].(map[string]any); ok && last["version"] != nil {
		installed = fmt.Sprintf(
			" (revision %v, chart %s %s)",
			last["version"],
			text(last, "chartName"),
			text(last, "chartVersion"),
		)
	}
	var changes []string
	path := validators.NewPath("spec")
	for _, c := range []struct{ field, from, to string }{
		{"targetNamespace", before.namespace, after.namespace},
		{"storageNamespace", before.storage, after.storage},
		{"releaseName", before.name, after.name},
	} {
		if c.from != c.to {
			if len(changes) == 0 {
				path = path.Child(c.field)
			}
			changes = append(changes, fmt.Sprintf("%s from %s to %s", c.field, c.from, c.to))
		}
	}
	p.Report(path, nil, "changes %s: Flux will uninstall release %s from namespace %s%s and install it again",
		strings.Join(changes, ", "), before.name, before.namespace, installed)
	return nil
}
