// Package treediff compares what two Git trees apply: by object and field, with what the difference does in a cluster.
package treediff

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/manifest"
	"github.com/flux-admission/flux-admission/internal/report"
)

// Options are what to compare beside the objects that Flux applies.
type Options struct {
	// Charts compares the objects of HelmReleases' charts, too.
	Charts bool
	// Policy is the file with the AdmissionPolicy; default: that of the head's cluster, or else the default policy.
	Policy string
}

// Compare compares two trees. The error is that of the context, or of a policy that cannot be used.
func Compare(ctx context.Context, base, head *check.Tree, o Options) (*report.Diff, error) {
	d := &report.Diff{}
	all := pairs(base, head)
	for _, pair := range all {
		c := &comparison{Options: o, ctx: ctx, diff: d, base: newSide(pair[0]), head: newSide(pair[1])}
		if len(all) > 1 {
			c.cluster = cmp.Or(c.head.Name, c.base.Name)
			d.Clusters = append(d.Clusters, c.cluster)
		}
		if err := c.compare(base, head); err != nil {
			return nil, err
		}
	}
	if err := addFindings(ctx, d, base, head); err != nil {
		return nil, err
	}
	d.Normalize()
	return d, nil
}

// pairs returns the clusters of both trees by name; one that a tree does not have is empty.
func pairs(base, head *check.Tree) [][2]*kustomization.Cluster {
	byName := map[string]*[2]*kustomization.Cluster{}
	for side, t := range []*check.Tree{base, head} {
		for _, c := range t.Clusters() {
			if byName[c.Name] == nil {
				none := &kustomization.Cluster{Complete: true}
				byName[c.Name] = &[2]*kustomization.Cluster{none, none}
			}
			byName[c.Name][side] = c
		}
	}
	var out [][2]*kustomization.Cluster
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, *byName[name])
	}
	return out
}

// addFindings adds the findings of a check of the head that the base does not have.
func addFindings(ctx context.Context, d *report.Diff, base, head *check.Tree) error {
	before, err := base.Evaluate(ctx, check.EvaluateOptions{})
	if err != nil {
		return err
	}
	after, err := head.Evaluate(ctx, check.EvaluateOptions{})
	if err != nil {
		return err
	}
	known := map[report.Identity]bool{}
	for i := range before.Findings {
		known[before.Findings[i].Identity()] = true
	}
	for i := range after.Findings {
		if f := &after.Findings[i]; f.Counts() && !known[f.Identity()] {
			d.Findings = append(d.Findings, *f)
		}
	}
	return nil
}

// key identifies an object in both trees: its name is without the hash of its content.
type key struct {
	// remote is the Kustomization that applies it to another cluster; release the HelmRelease whose chart has it.
	remote, release string
	group, kind     string
	namespace, name string
}

// entry is an object of one side.
type entry struct {
	key
	object *unstructured.Unstructured
	// built is nil for the objects of a chart.
	built *kustomization.Object
	owner *kustomization.Kustomization
	// release is the HelmRelease of an object of a chart.
	chartOf *check.Release
	// hashed is its name with the hash of its content; empty without one.
	hashed string
	// live is the whole object of a cluster; nil for those of a tree.
	live *unstructured.Unstructured
}

func (e *entry) ref() report.Object {
	return report.Object{APIVersion: e.object.GetAPIVersion(), Kind: e.kind, Namespace: e.namespace, Name: e.name}
}

// id returns the object as "Kind namespace/name".
func (e *entry) id() string {
	return report.Object{Kind: e.kind, Namespace: e.namespace, Name: e.name}.String()
}

func (e *entry) ownerName() string {
	if e.owner == nil {
		return ""
	}
	return e.owner.Key.String()
}

// side is a cluster of one tree.
type side struct {
	*kustomization.Cluster
	entries map[key]*entry
	order   []*entry
	// names are the names of generated objects without the hash, by those with it.
	names    map[string]string
	releases []*check.Release
}

// hashSuffix is what kustomize appends to the names of generated objects.
var hashSuffix = regexp.MustCompile(`-[24-9bcdfghkmt]{10}$`)

func newSide(c *kustomization.Cluster) *side {
	s := &side{Cluster: c, entries: map[key]*entry{}, names: map[string]string{}}
	for _, o := range c.Objects {
		if o.Origin.Generated && hashSuffix.MatchString(o.GetName()) {
			s.names[o.GetName()] = hashSuffix.ReplaceAllString(o.GetName(), "")
		}
	}
	for _, o := range c.Objects {
		if o.Origin.Synthesized {
			continue
		}
		e := &entry{object: s.withoutHashes(o.Unstructured), built: o, owner: o.Kustomization}
		if e.object.GetName() != o.GetName() {
			e.hashed = o.GetName()
		}
		if o.Kustomization != nil && o.Kustomization.RemoteCluster() {
			e.remote = o.Kustomization.Key.String()
		}
		s.add(e)
	}
	return s
}

// add adds an object. Of several with one identity, the first counts; check reports the others.
func (s *side) add(e *entry) {
	gvk := e.object.GroupVersionKind()
	e.group, e.kind, e.namespace, e.name = gvk.Group, gvk.Kind, e.object.GetNamespace(), e.object.GetName()
	if s.entries[e.key] == nil {
		s.entries[e.key] = e
		s.order = append(s.order, e)
	}
}

// addCharts adds the objects of the releases' charts.
func (s *side) addCharts(ctx context.Context, t *check.Tree) (err error) {
	if s.releases, err = t.Releases(ctx, s.Cluster); err != nil {
		return err
	}
	for _, r := range s.releases {
		for _, o := range r.Manifests {
			s.add(&entry{key: key{release: r.Key().String()}, object: s.withoutHashes(o), owner: r.Kustomization, chartOf: r})
		}
	}
	return nil
}

// withoutHashes returns the object with the names of generated objects without their hashes; the object itself if it has
// none.
func (s *side) withoutHashes(o *unstructured.Unstructured) *unstructured.Unstructured {
	if len(s.names) == 0 || !s.hasHash(o.Object) {
		return o
	}
	o = o.DeepCopy()
	s.replaceHashes(o.Object)
	return o
}

func (s *side) hasHash(v any) bool {
	switch v := v.(type) {
	case string:
		return s.names[v] != ""
	case map[string]any:
		for _, item := range v {
			if s.hasHash(item) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, s.hasHash)
	}
	return false
}

func (s *side) replaceHashes(v any) {
	switch v := v.(type) {
	case map[string]any:
		for field, item := range v {
			if text, ok := item.(string); ok && s.names[text] != "" {
				v[field] = s.names[text]
			}
			s.replaceHashes(item)
		}
	case []any:
		for i, item := range v {
			if text, ok := item.(string); ok && s.names[text] != "" {
				v[i] = s.names[text]
			}
			s.replaceHashes(item)
		}
	}
}

// comparison compares one cluster.
type comparison struct {
	Options
	ctx        context.Context //nolint:containedctx // of one call of Compare
	diff       *report.Diff
	cluster    string
	base, head *side
	// changes are the objects that differ.
	changes []*change
	// restarting are the workloads whose Pods are replaced.
	restarting []restarting
	// reported are the Kustomizations and releases in diff.NotCompared.
	reported map[string]bool
}

// change is an object that differs; before or after is nil if there is none.
type change struct {
	kind          report.Change
	before, after *entry
	fields        []report.FieldChange
}

// now returns the object at the head, or at the base if it is removed.
func (c *change) now() *entry {
	if c.after != nil {
		return c.after
	}
	return c.before
}

func (c *comparison) compare(base, head *check.Tree) error {
	c.reported = map[string]bool{}
	if c.Charts {
		if err := c.base.addCharts(c.ctx, base); err != nil {
			return err
		}
		if err := c.head.addCharts(c.ctx, head); err != nil {
			return err
		}
		c.reportUntemplated()
	}
	c.reportUnbuilt()
	c.findChanges()
	c.findMoves()
	for _, change := range c.changes {
		c.diff.Objects = append(c.diff.Objects, c.objectChange(change))
	}
	c.addEffects()
	return c.addAdmission(head)
}

func (c *comparison) notCompared(name, reason string) {
	if id := name + reason; !c.reported[id] {
		c.reported[id] = true
		c.diff.NotCompared = append(c.diff.NotCompared, report.NotCompared{Cluster: c.cluster, Name: name, Reason: reason})
	}
}

// reportUntemplated reports the releases that have changed and that could be templated on one side at most.
func (c *comparison) reportUntemplated() {
	for _, s := range []*side{c.base, c.head} {
		for _, r := range s.releases {
			if r.Err != nil && (s == c.head || c.head.release(r.Key()) != nil) {
				c.notCompared("HelmRelease "+r.Key().String(), "its chart's objects: "+r.Err.Error())
			}
		}
	}
}

func (s *side) release(key types.NamespacedName) *check.Release {
	i := slices.IndexFunc(s.releases, func(r *check.Release) bool { return r.Key() == key })
	if i < 0 {
		return nil
	}
	return s.releases[i]
}

// refused reports whether Flux refuses to build a Kustomization, or nothing is known of its objects.
func refused(k *kustomization.Kustomization) bool {
	return k.Failed() || k.State == kustomization.Unknown
}

// reportUnbuilt reports the Kustomizations whose objects are not all known on one side.
func (c *comparison) reportUnbuilt() {
	for _, s := range []*side{c.base, c.head} {
		name := "the head"
		if s == c.base {
			name = "the base"
		}
		for _, k := range s.Kustomizations {
			if !refused(k) {
				continue // remote bases are left out on both sides
			}
			reason := fmt.Sprintf("its source %s %s/%s is not this tree", k.Source.Kind, k.Source.Namespace, k.Source.Name)
			for _, p := range k.Problems {
				reason = p.String()
				break
			}
			other := c.base
			if s == c.base {
				other = c.head
			}
			if o := other.Kustomization(k.Key); o != nil && refused(o) && s == c.base {
				continue // reported for the head
			}
			c.notCompared("Kustomization "+k.Key.String(), "not built at "+name+": "+reason)
		}
	}
}

// unknownAt reports whether the objects of a Kustomization of one side are unknown at the other side: it is refused
// there, or only Kustomizations that are refused would apply it.
func unknownAt(other *side, k *kustomization.Kustomization, seen map[*kustomization.Kustomization]bool) bool {
	if k == nil || seen[k] {
		return false
	}
	seen[k] = true
	if there := other.Kustomization(k.Key); there != nil {
		return refused(there)
	}
	for _, parent := range k.Parents {
		if parent != k && !unknownAt(other, parent, seen) {
			return false
		}
	}
	return len(k.Parents) > 0 && slices.ContainsFunc(k.Parents, func(p *kustomization.Kustomization) bool { return p != k })
}

func (c *comparison) unknown(other *side, e *entry) bool {
	if e.chartOf != nil {
		r := other.release(e.chartOf.Key())
		if r != nil {
			return r.Err != nil
		}
	}
	return unknownAt(other, e.owner, map[*kustomization.Kustomization]bool{})
}

// findChanges finds the objects that differ, in the order of the head, then of the base.
func (c *comparison) findChanges() {
	for _, after := range c.head.order {
		before := c.base.entries[after.key]
		switch {
		case after.owner != nil && refused(after.owner), before != nil && before.owner != nil && refused(before.owner):
		case before == nil && c.unknown(c.base, after), before != nil && (c.unknown(c.head, before) || c.unknown(c.base, after)):
		case before == nil:
			c.changes = append(c.changes, &change{kind: report.Added, after: after})
		default:
			changed := &change{kind: report.Changed, before: before, after: after}
			changed.fields = Fields(before.object.Object, after.object.Object, manifest.IsSecret(after.object))
			if before.ownerName() != after.ownerName() {
				changed.kind = report.Moved
			}
			if len(changed.fields) > 0 || changed.kind == report.Moved {
				c.changes = append(c.changes, changed)
			}
		}
	}
	for _, before := range c.base.order {
		if c.head.entries[before.key] == nil && !(before.owner != nil && refused(before.owner)) && !c.unknown(c.head, before) {
			c.changes = append(c.changes, &change{kind: report.Removed, before: before})
		}
	}
}

// findMoves makes one change of an object that is removed from a namespace and added to another one.
func (c *comparison) findMoves() {
	type identity struct{ remote, release, group, kind, name, by string }
	of := func(e *entry) []identity {
		id := identity{remote: e.remote, release: e.release, group: e.group, kind: e.kind, name: e.name}
		var out []identity
		if e.built != nil && e.built.Origin.File != "" {
			id.by = "file " + e.built.Origin.File
			out = append(out, id)
		}
		if e.owner != nil {
			// A Kustomization may have moved with what it applies.
			id.by = "name " + e.owner.Key.Name
			out = append(out, id)
		}
		return out
	}
	// A file that several namespaces share has an object in each of them, and moves none.
	several := map[identity]int{}
	for _, s := range []*side{c.base, c.head} {
		there := map[identity]int{}
		for _, e := range s.order {
			for _, id := range of(e) {
				there[id]++
				several[id] = max(several[id], there[id])
			}
		}
	}
	removed := map[identity][]*change{}
	for _, r := range c.changes {
		if r.kind == report.Removed {
			for _, id := range of(r.before) {
				removed[id] = append(removed[id], r)
			}
		}
	}
	merged := map[*change]bool{}
	for _, a := range c.changes {
		if a.kind != report.Added {
			continue
		}
		for _, id := range of(a.after) {
			candidates := slices.DeleteFunc(slices.Clone(removed[id]), func(r *change) bool { return merged[r] || r.before.namespace == a.after.namespace })
			if len(candidates) != 1 || several[id] > 1 {
				continue
			}
			a.kind, a.before = report.Moved, candidates[0].before
			a.fields = Fields(a.before.object.Object, a.after.object.Object, manifest.IsSecret(a.after.object))
			merged[candidates[0]] = true
			break
		}
	}
	c.changes = slices.DeleteFunc(c.changes, func(r *change) bool { return merged[r] })
}

func (c *comparison) objectChange(ch *change) report.ObjectChange {
	e := ch.now()
	out := report.ObjectChange{
		Change: ch.kind, Cluster: c.cluster, Kustomization: e.ownerName(), Release: e.release, Object: e.ref(), Fields: ch.fields,
	}
	if ch.kind == report.Moved {
		if e.key != ch.before.key {
			from := ch.before.ref()
			out.From = &from
		}
		if ch.before.ownerName() != e.ownerName() {
			out.FromKustomization = ch.before.ownerName()
		}
	}
	if e.built != nil {
		out.File = e.built.Origin.File
		if ch.after != nil {
			position := e.built.Locate(nil).InOwnFile()
			out.File, out.Line = position.File, position.Line
		}
	}
	return out
}

// effect adds an effect on an object.
func (c *comparison) effect(e *entry, effect report.Effect) {
	effect.Cluster, effect.Object, effect.Kustomization = c.cluster, e.ref(), e.ownerName()
	c.diff.Effects = append(c.diff.Effects, effect)
}

// summary names some objects and counts the others.
func summary(list []string) string {
	const most = 5
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}
