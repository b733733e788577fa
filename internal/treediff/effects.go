package treediff

import (
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/inventory"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// addEffects adds what the changes do in the cluster.
func (c *comparison) addEffects() {
	c.addBlocked()
	c.addDeletions()
	c.addOwnerMoves()
	for _, ch := range c.changes {
		c.addMove(ch)
		c.addImmutable(ch)
		c.addReinstall(ch)
		c.addRestart(ch)
		c.addConfig(ch)
	}
	c.addRestarts()
	c.addImages()
	c.addSuspended()
	c.addWaiting()
}

func keyOfObject(e *entry) types.NamespacedName {
	return types.NamespacedName{Namespace: e.namespace, Name: e.name}
}

// addBlocked adds the Kustomizations that Flux builds at the base and refuses at the head: it applies nothing of them.
func (c *comparison) addBlocked() {
	for _, k := range c.head.Kustomizations {
		before := c.base.Kustomization(k.Key)
		if !k.Failed() || before != nil && before.Failed() {
			continue
		}
		reason := ""
		for _, p := range k.Problems {
			if reason = p.Message; reason != "" {
				break
			}
		}
		c.diff.Effects = append(c.diff.Effects, report.Effect{
			Kind: report.EffectBlocked, Severity: validators.SeverityError, Cluster: c.cluster, Kustomization: k.Key.String(),
			Object: report.Object{APIVersion: k.Object.GetAPIVersion(), Kind: k.Object.GetKind(), Namespace: k.Key.Namespace, Name: k.Key.Name},
			Message: fmt.Sprintf("Flux cannot build the Kustomization %s any more, so it applies and deletes nothing of it: %s",
				k.Key, reason),
		})
	}
}

// addMove adds the effect of another namespace.
func (c *comparison) addMove(ch *change) {
	if ch.kind != report.Moved || ch.before.key == ch.after.key {
		return
	}
	effect := report.Effect{Kind: report.EffectMove, Severity: validators.SeverityWarning}
	effect.Message = fmt.Sprintf("%s moves to namespace %s: Flux creates another object there", ch.before.id(), ch.after.namespace)
	if f := c.fateOf(ch.before); f.deleted {
		effect.Message += " and deletes this one"
		if data[ch.before.object.GroupVersionKind().GroupKind()] != "" {
			effect.Message += "; its data does not move"
		}
	} else {
		effect.Message += "; this one stays, because " + f.reason
	}
	c.effect(ch.after, effect)
}

// addOwnerMoves adds the objects that another Kustomization applies, once for both and on its own if data may be lost. The
// old owner deletes what it does not apply any more, unless the new one has put its own labels on it before.
func (c *comparison) addOwnerMoves() {
	type owners struct {
		from, to, loss string
	}
	moved := map[owners][]*entry{}
	var order []owners
	for _, ch := range c.changes {
		if ch.kind != report.Moved || ch.before.key != ch.after.key || ch.before.owner == nil || ch.after.owner == nil || keptBy(ch.before.object) != "" {
			continue
		}
		old := c.head.Kustomization(ch.before.owner.Key)
		if old == nil && !c.fateOfRemoved(ch.before.owner, map[*kustomization.Kustomization]bool{}).deleted || old != nil && !old.Spec.Prune {
			continue
		}
		o := owners{from: ch.before.ownerName(), to: ch.after.ownerName()}
		if gk := ch.before.object.GroupVersionKind().GroupKind(); data[gk] != "" || gk == namespaceKind {
			o.loss = ch.before.id()
		}
		if moved[o] == nil {
			order = append(order, o)
		}
		moved[o] = append(moved[o], ch.after)
	}
	for _, o := range order {
		list := moved[o]
		effect := report.Effect{Kind: report.EffectMove, Severity: validators.SeverityWarning, With: ids(list)}
		does, it := "move", "them"
		if len(list) == 1 {
			does, it = "moves", "it"
		}
		if o.loss != "" {
			effect.Severity = validators.SeverityError
		}
		effect.Message = fmt.Sprintf("%s %s from the Kustomization %s to %s: if the first is reconciled before the second, it deletes %s, and the second "+
			"creates %s again; to keep %s, set kustomize.toolkit.fluxcd.io/prune: disabled before", objects(list), does, o.from, o.to, it, it, it)
		c.effect(list[0], effect)
	}
}

// addReinstall adds the effect of another chart name. Another name or namespace of the release is a finding of the rule
// helm-release-move.
func (c *comparison) addReinstall(ch *change) {
	if ch.before == nil || ch.after == nil || ch.before.key != ch.after.key || ch.after.object.GroupVersionKind().GroupKind() != flux.HelmRelease {
		return
	}
	before, ok := helmrelease.ChartRef(ch.before.object)
	after, there := helmrelease.ChartRef(ch.after.object)
	if !ok || !there || before.Chart == "" || after.Chart == "" || path.Base(before.Chart) == path.Base(after.Chart) {
		return
	}
	// The field is of helm-controller 1.6; its default is Reinstall.
	if strategy, _, _ := unstructured.NestedString(ch.after.object.Object, "spec", "upgrade", "chartNameChangeStrategy"); strategy == "InPlaceUpdate" {
		return
	}
	c.effect(ch.after, report.Effect{
		Kind: report.EffectReinstall, Severity: validators.SeverityError,
		Message: fmt.Sprintf("HelmRelease %s changes its chart from %s to %s: Flux uninstalls the release, with everything that Helm does not keep, "+
			"and installs it again", keyOfObject(ch.after), path.Base(before.Chart), path.Base(after.Chart)),
	})
}

// podTemplate returns the template of a workload whose running Pods are replaced when it changes; nil for other objects.
func podTemplate(o *unstructured.Unstructured) map[string]any {
	gk := o.GroupVersionKind().GroupKind()
	if gk.Group != "apps" || !slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet"}, gk.Kind) {
		return nil
	}
	template, _, _ := unstructured.NestedMap(o.Object, "spec", "template")
	return template
}

// podTemplateChanges is the reason for new Pods of a workload that itself changes.
const podTemplateChanges = "the Pod template changes"

// addRestart adds the workloads whose Pods are replaced.
func (c *comparison) addRestart(ch *change) {
	if ch.before == nil || ch.after == nil || ch.before.key != ch.after.key {
		return
	}
	before, after := podTemplate(ch.before.object), podTemplate(ch.after.object)
	if after == nil || reflect.DeepEqual(before, after) {
		return
	}
	c.restarts(ch.after, podTemplateChanges)
}

// restart is why the Pods of workloads are replaced, and whether they are down meanwhile.
type restart struct {
	why  string
	down bool
}

// restarts records that the Pods of a workload are replaced.
func (c *comparison) restarts(e *entry, why string) {
	replicas, set, _ := unstructured.NestedFieldNoCopy(e.object.Object, "spec", "replicas")
	strategy, _, _ := unstructured.NestedString(e.object.Object, "spec", "strategy", "type")
	r := restart{why, strategy == "Recreate" || set && fmt.Sprint(replicas) == "1" && e.kind == "StatefulSet"}
	i := slices.IndexFunc(c.restarting, func(of restarting) bool { return of.restart == r })
	if i < 0 {
		i = len(c.restarting)
		c.restarting = append(c.restarting, restarting{restart: r})
	}
	c.restarting[i].workloads = append(c.restarting[i].workloads, e)
}

// restarting are the workloads with one reason.
type restarting struct {
	restart
	workloads []*entry
}

// addRestarts adds the recorded restarts, those with one reason as one effect.
func (c *comparison) addRestarts() {
	for _, r := range c.restarting {
		effect := report.Effect{Kind: report.EffectRestart, Severity: validators.SeverityInfo}
		down := ""
		if r.down {
			effect.Severity, down = validators.SeverityWarning, "; it is down meanwhile"
		}
		if len(r.workloads) == 1 {
			effect.Message = fmt.Sprintf("%s replaces its Pods: %s%s", r.workloads[0].id(), r.why, down)
		} else {
			if r.down {
				down = "; they are down meanwhile"
			}
			effect.With = ids(r.workloads)
			effect.Message = fmt.Sprintf("%d workloads replace their Pods: %s%s: %s", len(r.workloads), r.why, down, summary(effect.With))
		}
		c.effect(r.workloads[0], effect)
	}
}

// addConfig adds what a changed ConfigMap or Secret does to its users.
func (c *comparison) addConfig(ch *change) {
	if ch.before == nil || ch.after == nil || ch.before.key != ch.after.key || ch.after.group != "" || ch.after.kind != "ConfigMap" && ch.after.kind != "Secret" {
		return
	}
	if !slices.ContainsFunc(ch.fields, func(f report.FieldChange) bool {
		return strings.HasPrefix(f.Path, "data") || strings.HasPrefix(f.Path, "stringData") || strings.HasPrefix(f.Path, "binaryData")
	}) {
		return
	}
	e := ch.after
	hashed := e.hashed != "" && e.hashed != ch.before.hashed
	var stale, flows []string
	for _, user := range c.head.order {
		switch gk := user.object.GroupVersionKind().GroupKind(); {
		case user.namespace != e.namespace || user.remote != e.remote:
		case gk == flux.HelmRelease && valuesFrom(user.object, e.kind, e.name):
			flows = append(flows, user.id()+" gets new values")
		case gk == flux.Kustomization && substitutesFrom(c.head.Kustomization(keyOfObject(user)), e.kind, e.name):
			flows = append(flows, user.id()+" gets new variables")
		case podTemplate(user.object) != nil && refersTo(podTemplate(user.object), e.kind, e.name):
			switch {
			case hashed:
				c.restarts(user, "the name of "+e.kind+" "+e.name+" has another hash")
			case reloads(user.object):
				c.restarts(user, e.kind+" "+e.name+" changes, and an annotation of Reloader is set")
			default:
				stale = append(stale, user.id())
			}
		}
	}
	id := e.id()
	if len(stale) > 0 {
		c.effect(e, report.Effect{
			Kind: report.EffectConfig, Severity: validators.SeverityInfo, With: stale,
			Message: fmt.Sprintf("%s changes, and its users do not restart by themselves: %s; variables and files mounted by subPath stay old until they do", id, summary(stale)),
		})
	}
	if len(flows) > 0 {
		c.effect(e, report.Effect{Kind: report.EffectConfig, Severity: validators.SeverityInfo, With: flows, Message: id + " changes: " + summary(flows)})
	}
}

// reloads reports whether Reloader restarts a workload when its configuration changes.
func reloads(o *unstructured.Unstructured) bool {
	for name := range o.GetAnnotations() {
		if strings.Contains(name, "reloader.stakater.com/") {
			return true
		}
	}
	return false
}

func valuesFrom(o *unstructured.Unstructured, kind, name string) bool {
	from, _, _ := unstructured.NestedSlice(o.Object, "spec", "valuesFrom")
	return slices.ContainsFunc(from, func(item any) bool {
		m, _ := item.(map[string]any)
		return m["kind"] == kind && m["name"] == name
	})
}

func substitutesFrom(k *kustomization.Kustomization, kind, name string) bool {
	if k == nil || k.Spec.PostBuild == nil {
		return false
	}
	for _, from := range k.Spec.PostBuild.SubstituteFrom {
		if from.Kind == kind && from.Name == name {
			return true
		}
	}
	return false
}

// refersTo reports whether a Pod template refers to a ConfigMap or Secret: in volumes, in env, and in envFrom.
func refersTo(v any, kind, name string) bool {
	fields := []string{"configMap", "configMapRef", "configMapKeyRef"}
	if kind == "Secret" {
		fields = []string{"secret", "secretRef", "secretKeyRef"}
	}
	switch v := v.(type) {
	case map[string]any:
		for field, value := range v {
			m, _ := value.(map[string]any)
			if slices.Contains(fields, field) && (m["name"] == name || m["secretName"] == name) {
				return true
			}
			if refersTo(value, kind, name) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(item any) bool { return refersTo(item, kind, name) })
	}
	return false
}

// addImages adds the images that change, once for each.
func (c *comparison) addImages() {
	type pair struct{ from, to string }
	users := map[pair][]*entry{}
	var order []pair
	for _, ch := range c.changes {
		if ch.before == nil || ch.after == nil {
			continue
		}
		before, after := inventory.Images(ch.before.object), inventory.Images(ch.after.object)
		for _, to := range after {
			if slices.Contains(before, to) {
				continue
			}
			from := ""
			for _, was := range before {
				if repositoryOf(was) == repositoryOf(to) {
					from = was
				}
			}
			p := pair{from, to}
			if users[p] == nil {
				order = append(order, p)
			}
			users[p] = append(users[p], ch.after)
		}
	}
	for _, p := range order {
		message := "image " + p.to + " is new"
		if p.from != "" {
			message = fmt.Sprintf("image %s becomes %s", p.from, p.to)
		}
		list := ids(users[p])
		c.effect(users[p][0], report.Effect{Kind: report.EffectImage, Severity: validators.SeverityInfo, With: list, Message: message + " in " + summary(list)})
	}
}

// repositoryOf returns an image without its tag and digest.
func repositoryOf(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		return image[:i]
	}
	return image
}

// addSuspended adds the suspended Kustomizations and releases that keep a change from arriving.
func (c *comparison) addSuspended() {
	held := map[string][]string{}
	add := func(what string, ch *change) { held[what] = append(held[what], ch.now().id()) }
	for _, ch := range c.changes {
		e := ch.now()
		if e.chartOf != nil {
			if suspended, _, _ := unstructured.NestedBool(e.chartOf.Object.Object, "spec", "suspend"); suspended {
				add("the HelmRelease "+e.release, ch)
			}
		}
		if e.owner == nil {
			continue
		}
		if k := c.suspendedBy(e.owner.Key, map[types.NamespacedName]bool{}); k != nil {
			add("the Kustomization "+k.Key.String(), ch)
		}
		if e.object.GroupVersionKind().GroupKind() == flux.HelmRelease && ch.after != nil {
			if suspended, _, _ := unstructured.NestedBool(e.object.Object, "spec", "suspend"); suspended && ch.before != nil {
				add("the HelmRelease "+keyOfObject(e).String(), ch)
			}
		}
	}
	for _, what := range slices.Sorted(maps.Keys(held)) {
		c.diff.Effects = append(c.diff.Effects, report.Effect{
			Kind: report.EffectSuspended, Severity: validators.SeverityWarning, Cluster: c.cluster, With: held[what],
			Message: fmt.Sprintf("%s is suspended: the change does not arrive until it resumes: %s", what, summary(held[what])),
		})
	}
}

// suspendedBy returns the suspended Kustomization that keeps a change from a Kustomization: itself, or the one that
// applies it if its own definition would have to change.
func (c *comparison) suspendedBy(key types.NamespacedName, seen map[types.NamespacedName]bool) *kustomization.Kustomization {
	k := c.head.Kustomization(key)
	if k == nil {
		k = c.base.Kustomization(key)
	}
	if k == nil || seen[key] {
		return nil
	}
	seen[key] = true
	if k.Spec.Suspend {
		return k
	}
	// A Kustomization that exists already goes on by itself when its parent is suspended.
	if c.base.Kustomization(key) != nil || k.Object.Kustomization == nil {
		return nil
	}
	return c.suspendedBy(k.Object.Kustomization.Key, seen)
}

// addWaiting adds the Kustomizations that wait until the changed ones are ready.
func (c *comparison) addWaiting() {
	changed := map[types.NamespacedName]bool{}
	for _, ch := range c.changes {
		if ch.after != nil && ch.after.owner != nil && ch.after.chartOf == nil {
			changed[ch.after.owner.Key] = true
		}
	}
	for _, k := range c.head.Kustomizations {
		if !changed[k.Key] {
			continue
		}
		after := map[types.NamespacedName]bool{k.Key: true}
		var waiting []string
		for grown := true; grown; {
			grown = false
			for _, other := range c.head.Kustomizations {
				if !after[other.Key] && slices.ContainsFunc(other.DependsOn(), func(d types.NamespacedName) bool { return after[d] }) {
					after[other.Key], grown = true, true
					waiting = append(waiting, other.Key.String())
				}
			}
		}
		if len(waiting) == 0 {
			continue
		}
		slices.Sort(waiting)
		c.diff.Effects = append(c.diff.Effects, report.Effect{
			Kind: report.EffectWaits, Severity: validators.SeverityInfo, Cluster: c.cluster, Kustomization: k.Key.String(), With: waiting,
			Object:  report.Object{APIVersion: k.Object.GetAPIVersion(), Kind: k.Object.GetKind(), Namespace: k.Key.Namespace, Name: k.Key.Name},
			Message: fmt.Sprintf("while the Kustomization %s applies the change, these wait for it to become ready: %s", k.Key, summary(waiting)),
		})
	}
}
