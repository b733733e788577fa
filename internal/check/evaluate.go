package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/chartinput"
	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/file"
	"github.com/flux-admission/flux-admission/validators/flux"
	kustomizationrules "github.com/flux-admission/flux-admission/validators/kustomization"
)

// EvaluateOptions say how a tree is evaluated.
type EvaluateOptions struct {
	// Workers is how many objects are evaluated at a time; default: the number of processors.
	Workers int
	// Progress is called from several goroutines after each object with how many of all are done; nil for nobody.
	Progress func(done, all int)
	// Found is called for every finding on a built object, in no order but one at a time; nil for nobody.
	Found func(*kustomization.Object, *validators.Finding)
	// only selects the built objects to evaluate; nil for all objects and all files.
	only func(*kustomization.Object) bool
}

// Evaluate evaluates every object of the tree and reports the findings. An error means that nothing could be evaluated.
func (t *Tree) Evaluate(ctx context.Context, o EvaluateOptions) (*report.Report, error) {
	r := &report.Report{Rules: t.evaluated()}
	r.Summary.Files = t.Built.Files
	e := &evaluation{tree: t, report: r, options: o, reported: map[string]bool{}, missing: report.MissingInputs{}}
	e.comments, e.inconclusive = readComments(t.Built), map[string]map[string]bool{}
	for _, p := range t.Built.Problems {
		e.problem(p)
	}
	all := t.fileTasks()
	for _, p := range append(e.comments.invalid(t.Built), markerProblems(t.Built)...) {
		if task, ok := t.fileTask(p); ok {
			all = append(all, task)
		}
	}
	for _, unapplied := range t.Built.Unapplied {
		if task, ok := t.unappliedTask(unapplied); ok && unapplied.Parent == nil {
			all = append(all, task)
		}
	}
	for _, c := range t.Clusters() {
		markAccepted(c)
		tasks, err := t.clusterTasks(ctx, c)
		if err != nil {
			return nil, err
		}
		all = append(all, tasks...)
		r.Summary.Kustomizations += len(c.Kustomizations)
		r.Summary.Objects += len(tasks)
		if c.Entry != nil {
			r.Clusters = append(r.Clusters, report.Cluster{
				Name: c.Name, Policy: t.policies[c.Name].origin, Kustomizations: len(c.Kustomizations), Objects: len(tasks),
			})
		}
		for _, k := range c.Kustomizations {
			for _, p := range k.Problems {
				e.problem(p)
			}
		}
	}
	if o.only != nil {
		all = slices.DeleteFunc(all, func(t task) bool { return t.built == nil || !o.only(t.built) })
	}
	if err := e.run(ctx, all); err != nil {
		return nil, err
	}
	e.addUnusedComments(ctx, all)
	e.addExemptions(ctx)
	e.report.Skipped = append(e.report.Skipped, e.missing.Skipped(missingText)...)
	for _, c := range t.Clusters() {
		addToGraph(&r.Graph, c, len(t.Clusters()) > 1, r.Findings)
	}
	r.Findings = withoutBuildsOfFiles(r.Findings)
	r.Normalize()
	return r, nil
}

// withoutBuildsOfFiles removes the findings on builds that fail because of the text of a file, where the file has a finding at the same position with the
// same action: it is one mistake. The finding on the file names the Kustomizations instead.
func withoutBuildsOfFiles(list []report.Finding) []report.Finding {
	type reported struct {
		at     validators.Position
		action v1alpha1.Action
	}
	texts := map[reported]int{}
	for i, f := range list {
		if (f.ID == file.DuplicateKey.ID || f.ID == file.InvalidYAML.ID) && f.Suppressed == nil {
			texts[reported{f.Position(), f.Action}] = i
		}
	}
	drop := map[int]bool{}
	for i, f := range list {
		text, ok := texts[reported{f.Position(), f.Action}]
		if !ok { // a file that was not read has no lines
			text, ok = texts[reported{validators.Position{File: f.File}, f.Action}]
		}
		if !ok || f.ID != kustomizationrules.BuildFailed.ID || f.Suppressed != nil {
			continue
		}
		drop[i] = true
		for _, at := range f.Related {
			if !slices.Contains(list[text].Related, at) {
				list[text].Related = append(slices.Clip(list[text].Related), at)
			}
		}
	}
	var out []report.Finding
	for i, f := range list {
		if !drop[i] {
			out = append(out, f)
		}
	}
	return out
}

// task is one object to evaluate, and how the report names it.
type task struct {
	subject
	request validators.Request
	look    validators.Lookup
}

// subject is what findings are about: a built object, a file, or an object that nothing applies.
type subject struct {
	// policies are those of the clusters that it belongs to, each once.
	policies []*clusterPolicy
	// cluster is the name of the cluster; empty if it belongs to none or to several.
	cluster       string
	name          report.Object
	kustomization string
	file          string
	// built is nil for a file and for an object that nothing applies; position is set for these only.
	built    *kustomization.Object
	position validators.Position
}

// clusterTasks returns a task for each object of a cluster.
func (t *Tree) clusterTasks(ctx context.Context, c *kustomization.Cluster) ([]task, error) {
	created := withChartObjects(ctx, c.Lookup(t.chartsOf(c)))
	kinds, err := knownKinds(ctx, c, created.Lookup, created.definitions, t.definitions)
	if err != nil {
		return nil, err
	}
	if err := t.schemas.addTo(ctx, kinds, c.Objects); err != nil {
		return nil, err
	}
	return tasksOf(c, []*clusterPolicy{t.policies[c.Name]}, lookup.WithKinds(created, kinds)), nil
}

// tasksOf returns a task for each object of a cluster.
func tasksOf(c *kustomization.Cluster, policies []*clusterPolicy, look validators.Lookup) []task {
	uses := map[string]int{} // of the file of a Namespace
	for _, object := range c.Objects {
		if isNamespace(object) {
			uses[object.Origin.File]++
		}
	}
	var out []task
	for _, object := range c.Objects {
		// Objects of a remote cluster are not this cluster's. Objects that the entry point implies have no position in Git,
		// except for the position of what an implied Kustomization builds.
		if object.Kustomization != nil && object.Kustomization.RemoteCluster() ||
			object.Origin.Synthesized && object.GroupVersionKind().GroupKind() != flux.Kustomization {
			continue
		}
		s := subject{
			policies: policies, cluster: nameOfCluster(c), name: nameOf(object.Unstructured),
			file: object.Origin.File, built: object,
		}
		from := &validators.Provenance{
			DeclaredNamespace: object.DeclaredNamespace(), MayBePatch: object.MayBePatch(), Written: object.Written,
		}
		// A Namespace of several Kustomizations, or one that the namespace of a kustomization.yaml names, is renamed on purpose.
		if k := object.Kustomization; isNamespace(object) && k != nil && k.Spec.TargetNamespace == object.GetName() && uses[object.Origin.File] == 1 {
			from.DeclaredName = object.DeclaredName()
		}
		if object.Kustomization != nil {
			from.Kustomization = object.Kustomization.Key
			s.kustomization = object.Kustomization.Key.String()
		}
		out = append(out, task{s, validators.Request{
			Operation: validators.Create, Stage: validators.StageOffline, Object: object.Unstructured,
			Unresolved: object.Unresolved, Provenance: from,
		}, look})
	}
	return out
}

func isNamespace(o *kustomization.Object) bool {
	return o.GetAPIVersion() == "v1" && o.GetKind() == "Namespace"
}

// nameOfCluster returns the name of a cluster; empty for what is built without an entry point, which is no cluster of its own.
func nameOfCluster(c *kustomization.Cluster) string {
	if c.Entry == nil {
		return ""
	}
	return c.Name
}

// policiesOf returns the policies of clusters, each once.
func (t *Tree) policiesOf(clusters []*kustomization.Cluster) []*clusterPolicy {
	var out []*clusterPolicy
	for _, c := range clusters {
		if p := t.policies[c.Name]; !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// evaluated returns the rules on what a tree has that are active in any of the clusters to evaluate.
func (t *Tree) evaluated() []*validators.Meta {
	active := map[string]bool{}
	for _, p := range t.policiesOf(t.Clusters()) {
		for _, m := range p.Evaluated() {
			active[m.Name] = true
		}
	}
	return slices.DeleteFunc(allRules(), func(m *validators.Meta) bool {
		return !active[m.Name] || !m.Stages.Has(validators.StageOffline)
	})
}

// decide evaluates a task, and records the exemptions that apply. Of several policies, the one with the strictest result counts.
func (t *Tree) decide(ctx context.Context, task task, used *usedExemptions) policy.Decision {
	var out policy.Decision
	for i, p := range task.policies {
		d := p.EvaluateFrom(ctx, task.request, task.look, policy.Origin{Cluster: task.cluster, Files: task.files})
		used.add(p, d.Exempting)
		if i == 0 || stricter(d, out) {
			out = d
		}
	}
	return out
}

// files returns the files that a finding on the subject is about: the one that sets the field, the object's own, and the rule's position.
func (s *subject) files(f *validators.Finding) []string {
	out := []string{s.file}
	if f != nil {
		out = append(out, f.Position.File)
		if s.built != nil {
			at := s.built.Locate(f.Path)
			out = append(out, at.Position.File, at.InOwnFile().File)
		}
	}
	return out
}

// stricter reports whether a decision has more findings with a strict action than another one.
func stricter(a, b policy.Decision) bool {
	return cmp.Or(
		cmp.Compare(len(a.Deny), len(b.Deny)), cmp.Compare(len(a.Warn), len(b.Warn)), cmp.Compare(len(a.Audit), len(b.Audit)),
	) > 0
}

// belongsTo sets the clusters of a file or of an object that nothing applies: those that apply an object of the file, or all if none does. It
// returns false if none of them is to be evaluated.
func (t *Tree) belongsTo(s *subject) bool {
	applies := func(c *kustomization.Cluster) bool {
		return slices.ContainsFunc(c.Objects, func(o *kustomization.Object) bool { return o.Origin.File == s.file })
	}
	owners := slices.DeleteFunc(slices.Clone(t.Built.Clusters), func(c *kustomization.Cluster) bool { return !applies(c) })
	if len(owners) == 0 {
		owners = t.Built.Clusters
	}
	owners = slices.DeleteFunc(slices.Clone(owners), func(c *kustomization.Cluster) bool { return !t.isSelected(c) })
	if s.policies = t.policiesOf(owners); len(owners) == 1 {
		s.cluster = nameOfCluster(owners[0])
	}
	return len(owners) > 0
}

// fileTasks returns a task for each problem of a file.
func (t *Tree) fileTasks() []task {
	built := t.Built
	var names []string
	byFile := map[string][]validators.Problem{}
	for _, p := range built.Problems {
		if noRule := []validators.ProblemKind{
			validators.ProblemEntryPointMissing, validators.ProblemRootAssumed, validators.ProblemNoEntryPoint,
			validators.ProblemNotBuilt, validators.ProblemTemplate, validators.ProblemDirectoryUnread,
		}; slices.Contains(noRule, p.Kind) {
			continue // no rule reports it
		}
		if byFile[p.Position.File] == nil {
			names = append(names, p.Position.File)
		}
		byFile[p.Position.File] = append(byFile[p.Position.File], *p)
	}
	var out []task
	for _, name := range names {
		for _, problem := range byFile[name] {
			if task, ok := t.fileTask(&problem); ok {
				out = append(out, task)
			}
		}
	}
	return out
}

// fileTask returns the task for a problem of a file; false if the file belongs to no cluster to evaluate.
func (t *Tree) fileTask(problem *validators.Problem) (task, bool) {
	name := problem.Position.File
	s := subject{name: fileObject(name), file: name, position: problem.Position}
	if object := objectAt(t.Built, s.position); object != nil {
		s.name = nameOf(object.Unstructured)
		if object.Kustomization != nil {
			s.kustomization = object.Kustomization.Key.String()
		}
	}
	f := &validators.File{Name: name, Problems: []validators.Problem{*problem}}
	request := validators.Request{Operation: validators.Create, Stage: validators.StageOffline, File: f}
	ok := t.belongsTo(&s)
	return task{s, request, &lookup.Memory{}}, ok
}

// fileObject names a file in the place of an object, for reports.
func fileObject(name string) report.Object {
	return report.Object{APIVersion: v1alpha1.GroupVersion.String(), Kind: policy.FileKind, Name: name}
}

// objectAt returns the built object whose source is at a position; nil when there is none.
func objectAt(built *kustomization.Result, position validators.Position) *kustomization.Object {
	var best *kustomization.Object
	line := -1
	for _, c := range built.Clusters {
		for _, o := range c.Objects {
			if o.Origin.File != position.File || o.Origin.Generated {
				continue
			}
			if own := o.Locate(nil).InOwnFile(); own.Line <= position.Line && own.Line > line {
				best, line = o, own.Line
			}
		}
	}
	return best
}

// unappliedTask returns the task for an object that nothing applies; false if it belongs to no cluster to evaluate.
func (t *Tree) unappliedTask(u *kustomization.UnappliedObject) (task, bool) {
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": u.Group + "/" + u.Version, "kind": u.Kind, "metadata": map[string]any{"name": u.Name},
	}}
	if u.Namespace != "" {
		o.SetNamespace(u.Namespace)
	}
	s := subject{name: nameOf(o), file: u.Position.File, position: u.Position}
	ok := t.belongsTo(&s)
	return task{
		s,
		validators.Request{
			Operation: validators.Create, Stage: validators.StageOffline, Object: o, Provenance: &validators.Provenance{
				Unapplied: true, ReferencedBy: u.ReferencedBy, Entry: u.Entry,
			},
		},
		&lookup.Memory{},
	}, ok
}

// evaluation collects the policy's decision on each object.
type evaluation struct {
	tree    *Tree
	options EvaluateOptions
	report  *report.Report
	// reported are the problems and reasons that the report has already.
	reported map[string]bool
	// comments are those that ignore findings.
	comments *comments
	// inconclusive are the files with objects that a rule could not evaluate, by the rule's ID.
	inconclusive map[string]map[string]bool
	missing      report.MissingInputs
	// exemptions are those of policies that apply to something.
	exemptions *usedExemptions
}

// run evaluates the tasks several at a time, and reports them in their order.
func (e *evaluation) run(ctx context.Context, all []task) error {
	workers := e.options.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	decisions := make([]policy.Decision, len(all))
	e.exemptions = newUsedExemptions()
	var next, done atomic.Int64
	var running sync.WaitGroup
	for range min(workers, len(all)) {
		running.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(all) && ctx.Err() == nil; i = next.Add(1) - 1 {
				decisions[i] = e.tree.decide(ctx, all[i], e.exemptions)
				if n := done.Add(1); e.options.Progress != nil {
					e.options.Progress(int(n), len(all))
				}
			}
		})
	}
	running.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("checking objects, %d of %d done: %w", done.Load(), len(all), err)
	}
	for i, t := range all {
		e.add(t.subject, decisions[i])
	}
	e.leaveOtherConventions(all)
	return nil
}

// A convention is taken not to be the tree's if at least minOthers objects, and more than one of maxConforming, do
// otherwise. A mistake moves a directory, not a fifth of a tree.
const (
	minOthers     = 3
	maxConforming = 5
)

// leaveOtherConventions removes the findings of rules on conventions that many objects of the tree do not follow, and
// those of objects that do otherwise on purpose, unless the user named the rule in a policy or in flags.
func (e *evaluation) leaveOtherConventions(all []task) {
	for _, rule := range e.report.Rules {
		if !rule.Convention {
			continue
		}
		objects := 0
		for _, t := range all {
			if o := t.request.Object; o != nil && slices.Contains(rule.Scope.Kinds, o.GroupVersionKind().GroupKind()) {
				objects++
			}
		}
		isOfRule := func(f report.Finding) bool { return f.ID == rule.ID }
		others := 0
		for _, f := range e.report.Findings {
			if isOfRule(f) {
				others++
			}
		}
		isConvention := others < minOthers || maxConforming*others <= objects
		before := len(e.report.Findings)
		e.report.Findings = slices.DeleteFunc(e.report.Findings, func(f report.Finding) bool {
			return isOfRule(f) && f.Group != "" && (!isConvention || f.Of != nil && f.Of.OnPurpose)
		})
		left := before - len(e.report.Findings)
		if left == 0 {
			continue
		}
		reason := fmt.Sprintf("%d of %d objects do otherwise, so it is not a convention of this tree; "+
			"a policy that lists the rule, or --warn %s, makes it one", others, objects, rule.ID)
		if isConvention {
			reason = fmt.Sprintf("%d objects do otherwise on purpose: they are a tenant's; "+
				"a policy that lists the rule, or --warn %s, reports them", left, rule.ID)
		}
		e.report.Skipped = append(e.report.Skipped, report.Skipped{Rule: rule.Name, ID: rule.ID, Reason: reason})
	}
}

// onUnknownFix is the fix of a finding on an inconclusive rule.
const onUnknownFix = "Give the check what is missing, or set onUnknown: Allow for the rule in the policy."

func (e *evaluation) add(s subject, d policy.Decision) {
	r := e.report
	for _, decided := range d.Findings() {
		f := e.finding(s, decided.Finding, decided.Action)
		if decided.Exemption != nil {
			f.Suppressed = &report.Suppression{By: report.ByExemption, Reason: decided.Exemption.Reason}
		}
		r.Findings = append(r.Findings, f)
		if e.options.Found != nil && s.built != nil {
			e.options.Found(s.built, decided.Finding)
		}
	}
	for _, u := range d.Unknown {
		if u.Action == v1alpha1.ActionDeny || u.Action == v1alpha1.ActionWarn {
			r.Findings = append(r.Findings, e.finding(s, &validators.Finding{
				Rule:       u.Rule,
				Diagnostic: validators.Diagnostic{Message: "inconclusive: " + u.Reason, Fix: onUnknownFix},
				Key:        "inconclusive",
			}, u.Action))
		}
	}
	e.skipped(s, d.Unknown, true)
	e.skipped(s, d.Skipped, false)
	for _, j := range d.Errors {
		e.markInconclusive(j.Rule.ID, s.file)
		r.Errors = append(
			r.Errors, report.Error{Rule: j.Rule.Name, ID: j.Rule.ID, Object: &s.name, File: s.file, Message: j.Reason},
		)
	}
}

// skipped reports each reason once, however many objects it prevents from being evaluated.
func (e *evaluation) skipped(s subject, list []policy.NotEvaluated, unknown bool) {
	for _, j := range list {
		if unknown {
			e.markInconclusive(j.Rule.ID, s.file)
		}
		if input, ok := errors.AsType[*validators.MissingInput](j.Cause); ok {
			e.missing.Add(input)
			continue
		}
		if errors.Is(j.Cause, kustomization.ErrNoEntryPoint) {
			continue // the report begins with it
		}
		if key := j.Rule.ID + j.Reason; !e.reported[key] {
			e.reported[key] = true
			e.report.Skipped = append(
				e.report.Skipped,
				report.Skipped{Rule: j.Rule.Name, ID: j.Rule.ID, Object: &s.name, Reason: j.Reason, Unknown: unknown},
			)
		}
	}
}

func (e *evaluation) markInconclusive(id, file string) {
	if e.inconclusive[id] == nil {
		e.inconclusive[id] = map[string]bool{}
	}
	e.inconclusive[id][file] = true
}

// missingText returns what cannot be checked without an input, and the flag that gives it.
func missingText(what string) (text, remedy string) {
	switch what {
	case kindschema.CustomResourceDefinition.Kind:
		return "objects of kinds without a CustomResourceDefinition in the tree were checked only as far as their kind is known",
			"use --crds DIR or --schema-location"
	case kindschema.BuiltInDefinition:
		return "objects of kinds without a CustomResourceDefinition in the tree were validated with the built-in one, which may be of another release",
			"use --crds DIR or --schema-location"
	}
	return chartinput.MissingText(what)
}

func (e *evaluation) finding(s subject, f *validators.Finding, action v1alpha1.Action) report.Finding {
	out := report.Finding{
		Rule: f.Rule.Name, ID: f.Rule.ID, Severity: f.Rule.Severity, Action: action,
		Object: s.name, Kustomization: s.kustomization, Cluster: s.cluster,
		Message: f.Message, Fix: f.Fix, Key: f.Key, Of: f,
	}
	position, own := s.position, s.position
	if s.built != nil {
		out.Path = f.Path.String()
		at := s.built.Locate(f.Path)
		position, own = at.Position, at.InOwnFile()
		for _, related := range at.Related {
			out.Related = append(out.Related, report.Position{Position: related.Position, Note: string(related.Role)})
		}
	}
	if f.Position.File != "" {
		if position.File != "" && position != f.Position && s.built != nil {
			out.Related = append(out.Related, report.Position{Position: position})
		}
		position = f.Position
	}
	for _, related := range f.Related {
		out.Related = append(out.Related, report.Position{Position: related})
	}
	out.File, out.Line, out.Column = position.File, position.Line, position.Column
	out.Source = own
	out.Suppressed = e.comments.suppression(f.Rule, position, own)
	// A user who asked for the rule sees each of its findings.
	if f.Rule.Group != "" && !slices.ContainsFunc(s.policies, func(p *clusterPolicy) bool { return p.requested[f.Rule.Name] }) {
		out.Group = f.Rule.Group
	}
	return out
}

func nameOf(o *unstructured.Unstructured) report.Object {
	return report.Object{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// problem reports a problem of the build that is no rule's: one that leaves something unknown as skipped, others as
// errors.
func (e *evaluation) problem(p *validators.Problem) {
	switch p.Kind {
	case validators.ProblemRemoteBase, validators.ProblemRemoteContent, validators.ProblemSourceUnknown,
		validators.ProblemRootAssumed, validators.ProblemNoEntryPoint, validators.ProblemNotBuilt, validators.ProblemTemplate,
		validators.ProblemDirectoryUnread:
		if e.first(p) {
			e.report.Skipped = append(
				e.report.Skipped, report.Skipped{
					File: p.Position.File, Line: p.Position.Line, Reason: p.Message, Unknown: p.Kind != validators.ProblemTemplate,
					Leading: p.Kind == validators.ProblemNoEntryPoint || p.Kind == validators.ProblemRootAssumed,
				},
			)
		}
	case validators.ProblemEntryPointMissing:
		if e.first(p) {
			e.report.Errors = append(
				e.report.Errors,
				report.Error{File: p.Position.File, Line: p.Position.Line, Column: p.Position.Column, Message: p.Message},
			)
		}
	default: // a rule reports it
	}
}

// first reports whether the problem was not reported before, and records it. A source is one problem, whatever clusters refer to it.
func (e *evaluation) first(p *validators.Problem) bool {
	key := p.String()
	if p.Kind == validators.ProblemSourceUnknown {
		key = p.Message
	}
	known := e.reported[key]
	e.reported[key] = true
	return !known
}
