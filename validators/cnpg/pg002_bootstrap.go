package cnpg

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// Bootstrap is the rule cnpg-bootstrap.
//
// The CRD allows all bootstrap methods at once and any name of an external cluster; CloudNativePG's own webhook
// rejects them (internal/webhook/v1/cluster_webhook.go: validateBootstrapMethod, validateBootstrapRecoverySource,
// validateBootstrapPgBaseBackupSource, validateReplicaClusterExternalClusters). A cluster without that webhook starts with
// one of the methods and ignores the others.
var Bootstrap = &validators.Rule{
	Meta: validators.Meta{
		ID:       "PG002",
		Name:     "cnpg-bootstrap",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{Cluster}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "CloudNativePG Cluster cannot be bootstrapped",
			Why: "CloudNativePG rejects a Cluster with more than one bootstrap method, and one whose source is not " +
				"among its externalClusters. The Kustomization fails, usually when the database has to be restored.",
			Fix: "Keep one of initdb, recovery and pg_basebackup, and name an entry of spec.externalClusters as the " +
				"source.",
			Since: "v0.1.0",
		},
	},
	Check: checkBootstrap,
}

func checkBootstrap(_ context.Context, p *validators.Pass) error {
	spec := validators.NewPath("spec")
	bootstrap, _ := nested(p.Object.Object, "spec", "bootstrap").(map[string]any)
	var methods []string
	for _, m := range []string{"initdb", "recovery", "pg_basebackup"} {
		if bootstrap[m] != nil {
			methods = append(methods, m)
		}
	}
	if len(methods) > 1 {
		p.Report(
			spec.Child("bootstrap", methods[1]),
			nil,
			"spec.bootstrap has %s; must have one bootstrap method only",
			strings.Join(methods, " and "),
		)
	}
	known := externalClusters(p.Object.Object)
	if known == nil {
		return nil
	}
	for _, at := range []validators.Path{
		spec.Child("bootstrap", "recovery", "source"),
		spec.Child("bootstrap", "pg_basebackup", "source"),
		spec.Child("bootstrap", "initdb", "import", "source", "externalCluster"),
		spec.Child("replica", "source"),
	} {
		name, _ := at.Lookup(p.Object.Object).(string)
		if name == "" || unresolved.String(name) || slices.Contains(known, name) {
			continue
		}
		f := p.Report(at, name, "spec.externalClusters has no cluster %s", name)
		if near := suggest.Nearest(name, known); near != "" {
			f.Message += "; did you mean " + near + "?"
		} else if len(known) > 0 {
			f.Message += "; it has " + strings.Join(known, ", ")
		}
		f.Key = name
	}
	return nil
}

// externalClusters returns the names of spec.externalClusters; nil if one of them is not known.
func externalClusters(object map[string]any) []string {
	list, _ := nested(object, "spec", "externalClusters").([]any)
	out := []string{}
	for _, item := range list {
		name, _ := nested(item, "name").(string)
		if name == "" || unresolved.String(name) {
			return nil
		}
		out = append(out, name)
	}
	return out
}
