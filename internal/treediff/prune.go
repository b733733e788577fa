package treediff

import (
	"fmt"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// The annotations or labels with which an object is not pruned; kustomize-controller 1.9, deleteObjects.
var keepers = map[string]string{
	flux.Kustomization.Group + "/prune":     "disabled",
	flux.Kustomization.Group + "/reconcile": "disabled",
	flux.Kustomization.Group + "/ssa":       "Ignore",
}

// keptBy returns the annotation or label with which an object is not pruned; empty for none.
func keptBy(o *unstructured.Unstructured) string {
	for name, value := range keepers {
		if strings.EqualFold(o.GetAnnotations()[name], value) || strings.EqualFold(o.GetLabels()[name], value) {
			return name + ": " + value
		}
	}
	return ""
}

// data are kinds whose deletion loses data, with what goes with them.
var data = map[schema.GroupKind]string{
	{Kind: "PersistentVolumeClaim"}:                                   "its volume is deleted with it, unless the reclaim policy of the volume is Retain",
	{Kind: "PersistentVolume"}:                                        "the volume is no longer known to the cluster",
	{Group: "postgresql.cnpg.io", Kind: "Cluster"}:                    "the operator deletes its instances and their volumes: the database is lost, unless there is a backup",
	{Group: "postgresql.cnpg.io", Kind: "Database"}:                   "the database is dropped if spec.databaseReclaimPolicy is delete",
	{Group: "acid.zalan.do", Kind: "postgresql"}:                      "the operator deletes its instances and their volumes",
	{Group: "pxc.percona.com", Kind: "PerconaXtraDBCluster"}:          "the operator deletes its instances",
	{Group: "psmdb.percona.com", Kind: "PerconaServerMongoDB"}:        "the operator deletes its instances",
	{Group: "mysql.oracle.com", Kind: "InnoDBCluster"}:                "the operator deletes its instances",
	{Group: "k8s.mariadb.com", Kind: "MariaDB"}:                       "the operator deletes its instances",
	{Group: "mongodbcommunity.mongodb.com", Kind: "MongoDBCommunity"}: "the operator deletes its instances",
	{Group: "dragonflydb.io", Kind: "Dragonfly"}:                      "the operator deletes its instances and what they hold in memory",
	{Group: "kafka.strimzi.io", Kind: "Kafka"}:                        "the operator deletes its brokers",
	{Group: "elasticsearch.k8s.elastic.co", Kind: "Elasticsearch"}:    "the operator deletes its instances and their volumes",
	{Group: "minio.min.io", Kind: "Tenant"}:                           "the operator deletes its instances",
	{Group: "ceph.rook.io", Kind: "CephCluster"}:                      "the operator deletes the storage cluster",
	{Group: "ceph.rook.io", Kind: "CephBlockPool"}:                    "the operator deletes the pool with its volumes",
	{Group: "ceph.rook.io", Kind: "CephFilesystem"}:                   "the operator deletes the file system",
	{Group: "ceph.rook.io", Kind: "CephObjectStore"}:                  "the operator deletes the object store",
	{Group: "objectbucket.io", Kind: "ObjectBucketClaim"}:             "the bucket is deleted with it",
	{Group: "longhorn.io", Kind: "Volume"}:                            "the volume is deleted",
}

var namespaceKind = schema.GroupKind{Kind: "Namespace"}

// fate is what Flux does with an object that is no longer applied.
type fate struct {
	deleted bool
	// reason is why it is not deleted.
	reason string
}

// fateOf returns what happens to an object that the head does not apply at its place.
func (c *comparison) fateOf(e *entry) fate {
	if e.chartOf != nil {
		if e.object.GetAnnotations()["helm.sh/resource-policy"] == "keep" {
			return fate{reason: "it has the annotation helm.sh/resource-policy: keep"}
		}
		return fate{deleted: true}
	}
	if by := keptBy(e.object); by != "" {
		return fate{reason: "it has " + by}
	}
	if e.owner == nil {
		return fate{reason: "no Kustomization applied it"}
	}
	if now := c.head.Kustomization(e.owner.Key); now != nil {
		switch {
		case now.Spec.Suspend:
			return fate{reason: "the Kustomization " + now.Key.String() + " is suspended; it is deleted when that resumes"}
		case !now.Spec.Prune:
			return fate{reason: "prune of the Kustomization " + now.Key.String() + " is false"}
		}
		return fate{deleted: true}
	}
	return c.fateOfRemoved(e.owner, map[*kustomization.Kustomization]bool{})
}

// fateOfRemoved returns what happens to the objects of a Kustomization that the head does not have.
func (c *comparison) fateOfRemoved(k *kustomization.Kustomization, seen map[*kustomization.Kustomization]bool) fate {
	name := "the Kustomization " + k.Key.String()
	policy := k.Spec.DeletionPolicy
	switch {
	case k.Spec.Suspend:
		return fate{reason: name + " is suspended when it is removed"}
	case policy == kustomizev1.DeletionPolicyOrphan:
		return fate{reason: "deletionPolicy of " + name + " is Orphan"}
	case (policy == "" || policy == kustomizev1.DeletionPolicyMirrorPrune) && !k.Spec.Prune:
		return fate{reason: "prune of " + name + " is false"}
	}
	if k.Object.Kustomization == nil || k.Object.Kustomization == k || seen[k] {
		return fate{reason: name + " itself stays until somebody deletes it"}
	}
	seen[k] = true
	if e := c.base.entries[key{group: flux.Kustomization.Group, kind: flux.Kustomization.Kind, namespace: k.Key.Namespace, name: k.Key.Name}]; e != nil {
		if own := c.fateOf(e); !own.deleted {
			return fate{reason: name + " itself stays: " + own.reason}
		}
	}
	return fate{deleted: true}
}

// addDeletions adds what Flux deletes, the loss of data first, and what stays behind.
func (c *comparison) addDeletions() {
	deleted, orphaned := map[string][]*entry{}, map[string][]*entry{}
	var owners, reasons []string
	for _, ch := range c.changes {
		gone := ch.before
		if ch.kind != report.Removed && (ch.kind != report.Moved || ch.before.key == ch.after.key) {
			continue
		}
		f := c.fateOf(gone)
		if !f.deleted {
			if orphaned[f.reason] == nil {
				reasons = append(reasons, f.reason)
			}
			orphaned[f.reason] = append(orphaned[f.reason], gone)
			continue
		}
		if c.addLoss(gone) {
			continue
		}
		by := gone.ownerName()
		if gone.release != "" {
			by = "\x00" + gone.release
		}
		if deleted[by] == nil {
			owners = append(owners, by)
		}
		deleted[by] = append(deleted[by], gone)
	}
	for _, by := range owners {
		list := deleted[by]
		deleter := "the Kustomization " + by
		if release, ok := strings.CutPrefix(by, "\x00"); ok {
			deleter = "Helm, for the release " + release + ","
		}
		c.effect(list[0], report.Effect{
			Kind: report.EffectDelete, Severity: validators.SeverityWarning, With: ids(list),
			Message: fmt.Sprintf("%s deletes %s", deleter, objects(list)),
		})
	}
	for _, reason := range reasons {
		list := orphaned[reason]
		c.effect(list[0], report.Effect{
			Kind: report.EffectOrphan, Severity: validators.SeverityWarning, With: ids(list),
			Message: fmt.Sprintf("%s: %s", stays(list), reason),
		})
	}
}

func objects(list []*entry) string {
	if len(list) == 1 {
		return list[0].id()
	}
	return fmt.Sprintf("%d objects: %s", len(list), summary(ids(list)))
}

func stays(list []*entry) string {
	if len(list) == 1 {
		return list[0].id() + " stays in the cluster, and nothing applies it any more"
	}
	return fmt.Sprintf("%d objects stay in the cluster, and nothing applies them any more", len(list))
}

// addLoss adds the effect of deleting an object that takes others or data with it. It returns false for others.
func (c *comparison) addLoss(e *entry) bool {
	gk := e.object.GroupVersionKind().GroupKind()
	id := e.id()
	effect := report.Effect{Kind: report.EffectDelete, Severity: validators.SeverityError}
	switch {
	case data[gk] != "":
		effect.Message = id + " is deleted: " + data[gk]
	case gk == namespaceKind:
		effect.With = ids(c.inNamespace(e.name))
		effect.Message = fmt.Sprintf("%s is deleted with everything in it, also what Flux did not apply", id)
		if n := len(effect.With); n > 0 {
			effect.Message += fmt.Sprintf("; of this tree: %s", summary(effect.With))
		}
	case gk == kindschema.CustomResourceDefinition:
		defined := kindschema.DefinedKind(e.object)
		effect.With = ids(c.ofKind(defined))
		effect.Message = fmt.Sprintf("%s is deleted with all objects of the kind %s, whoever applied them", id, defined.Kind)
		if n := len(effect.With); n > 0 {
			effect.Message += fmt.Sprintf("; of this tree: %s", summary(effect.With))
		}
	case gk == flux.HelmRelease:
		effect.Message = id + " is deleted: helm-controller uninstalls the release, with everything that Helm does not keep"
		for _, r := range c.base.releases {
			if r.Key().String() == e.namespace+"/"+e.name {
				for _, o := range r.Manifests {
					effect.With = append(effect.With, o.GetKind()+" "+o.GetName())
				}
			}
		}
		effect.Severity = validators.SeverityWarning
	case gk == flux.Kustomization:
		k := c.base.Kustomization(keyOfObject(e))
		if k == nil || len(k.Objects) == 0 {
			return false
		}
		if f := c.fateOfRemoved(k, map[*kustomization.Kustomization]bool{}); !f.deleted {
			return false // what stays is reported for its objects
		}
		effect.Severity = validators.SeverityWarning
		effect.Message = fmt.Sprintf("%s is deleted with the %d objects that it applies", id, len(k.Objects))
		for _, o := range k.Objects {
			effect.With = append(effect.With, o.String())
		}
	case e.kind == "StatefulSet":
		when, _, _ := unstructured.NestedString(e.object.Object, "spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted")
		if when != "Delete" {
			return false
		}
		effect.Message = id + " is deleted with its PersistentVolumeClaims: persistentVolumeClaimRetentionPolicy.whenDeleted is Delete"
	default:
		return false
	}
	c.effect(e, effect)
	return true
}

// inNamespace returns the objects of the base in a namespace.
func (c *comparison) inNamespace(name string) []*entry {
	return slices.DeleteFunc(slices.Clone(c.base.order), func(e *entry) bool { return e.namespace != name || e.remote != "" })
}

// ofKind returns the objects of the base of a kind.
func (c *comparison) ofKind(gk schema.GroupKind) []*entry {
	return slices.DeleteFunc(slices.Clone(c.base.order), func(e *entry) bool { return e.group != gk.Group || e.kind != gk.Kind })
}
