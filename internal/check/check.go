// Package check evaluates a Git tree before it reaches a cluster: it renders the tree as Flux would, puts every rendered object to the same
// rules and the same policy as the webhook, and reports what they say with the file and line it stands on.
package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// Options say what is checked by what.
type Options struct {
	// Policy decides what is done about findings.
	Policy *policy.Policy
	// Charts resolves charts; nil makes every chart unknown.
	Charts lookup.Charts
	// CRDs are CustomResourceDefinitions that are installed although the tree does not apply them, with where they come from.
	CRDs []Definition
	// FoldRule is the name of a rule whose findings are folded into one for people; empty for none.
	FoldRule string
	// Workers is how many objects are evaluated at a time; default: the number of processors.
	Workers int
	// Progress is called as objects are evaluated, from several goroutines: of all objects, done are. Nil for nobody.
	Progress func(done, all int)
	// Found is called for every finding on a rendered object, in no order but one at a time. Nil for nobody.
	Found func(*kustomization.Object, *validators.Finding)
}

// Definition is a CustomResourceDefinition and where it comes from, for people.
type Definition struct {
	Origin string
	Object *unstructured.Unstructured
}

// Run evaluates what was rendered. Findings are in the report; an error means that nothing could be evaluated.
func Run(ctx context.Context, rendered *kustomization.Result, o Options) (*report.Report, error) {
	r := &report.Report{Rules: o.Policy.Evaluated()}
	r.Summary.Files = rendered.Files
	e := &evaluation{report: r, options: o, said: map[string]bool{}, notGiven: map[string]map[string]bool{}}
	var all []task
	for _, p := range rendered.Problems {
		e.problem(p)
	}
	files, err := fileTasks(rendered)
	if err != nil {
		return nil, err
	}
	all = append(all, files...)
	for _, orphan := range rendered.Unapplied {
		if orphan.Under == nil {
			all = append(all, orphanTask(orphan))
		}
	}
	for _, c := range rendered.Clusters {
		tasks, err := clusterTasks(ctx, c, o)
		if err != nil {
			return nil, err
		}
		all = append(all, tasks...)
		r.Summary.Kustomizations += len(c.Kustomizations)
		r.Summary.Objects += len(tasks)
		for _, k := range c.Kustomizations {
			for _, p := range k.Problems {
				e.problem(p)
			}
		}
	}
	if err := e.run(ctx, all); err != nil {
		return nil, err
	}
	e.sayNotGiven()
	for _, c := range rendered.Clusters {
		draw(&r.Graph, c, r.Findings)
	}
	r.Normalize()
	return r, nil
}

// task is one object to put to the policy, and what the report says of it.
type task struct {
	subject
	request validators.Request
	look    validators.Lookup
}

// subject is what findings are about: a rendered object, a file, or an object that nothing applies.
type subject struct {
	name          report.Object
	kustomization string
	file          string
	// rendered is nil for what was not rendered.
	rendered *kustomization.Object
	// place is where it is, for what was not rendered.
	place kustomization.Position
}

// clusterTasks are the objects of a cluster.
func clusterTasks(ctx context.Context, c *kustomization.Cluster, o Options) ([]task, error) {
	look := c.Lookup(o.Charts)
	kinds, err := knownKinds(ctx, c, look, o)
	if err != nil {
		return nil, err
	}
	look = lookup.WithKinds(look, kinds)
	var out []task
	for _, object := range c.Objects {
		// What another cluster gets is that cluster's. What the entry point implies has no place in Git, but a Kustomization's build has.
		if object.Kustomization != nil && object.Kustomization.RemoteCluster() || object.Origin.Implied && object.GroupVersionKind().GroupKind() != flux.Kustomization {
			continue
		}
		s := subject{name: named(object.Unstructured), file: object.Origin.File, rendered: object}
		from := &validators.Provenance{DeclaredNamespace: object.DeclaredNamespace()}
		if object.Kustomization != nil {
			from.Kustomization = object.Kustomization.Key
			s.kustomization = object.Kustomization.Key.String()
		}
		out = append(out, task{s, validators.Request{
			Operation: validators.Create, Object: object.Unstructured, Unresolved: object.Unknown, Provenance: from,
		}, look})
	}
	return out, nil
}

// fileTasks are the files that have problems.
func fileTasks(rendered *kustomization.Result) ([]task, error) {
	var names []string
	byFile := map[string][]validators.BuildProblem{}
	for _, p := range rendered.Problems {
		if problem, ok := p.ForRules(); ok {
			if byFile[p.Position.File] == nil {
				names = append(names, p.Position.File)
			}
			byFile[p.Position.File] = append(byFile[p.Position.File], problem)
		}
	}
	var out []task
	for _, name := range names {
		for _, problem := range byFile[name] {
			o, err := validators.NewFile(name, []validators.BuildProblem{problem})
			if err != nil {
				return nil, err
			}
			s := subject{name: named(o), file: name, place: kustomization.Position(problem.Position)}
			if object := objectAt(rendered, s.place); object != nil {
				s.name = named(object.Unstructured)
				if object.Kustomization != nil {
					s.kustomization = object.Kustomization.Key.String()
				}
			}
			out = append(out, task{s, validators.Request{Operation: validators.Create, Object: o}, &lookup.Memory{}})
		}
	}
	return out, nil
}

// objectAt returns the rendered object that is written at a place; nil when there is none.
func objectAt(rendered *kustomization.Result, place kustomization.Position) *kustomization.Object {
	var best *kustomization.Object
	line := -1
	for _, c := range rendered.Clusters {
		for _, o := range c.Objects {
			if o.Origin.File != place.File || o.Origin.Generated {
				continue
			}
			if own := o.Locate(nil).Own(); own.Line <= place.Line && own.Line > line {
				best, line = o, own.Line
			}
		}
	}
	return best
}

func orphanTask(orphan *kustomization.Orphan) task {
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": orphan.Group + "/" + orphan.Version, "kind": orphan.Kind, "metadata": map[string]any{"name": orphan.Name},
	}}
	if orphan.Namespace != "" {
		o.SetNamespace(orphan.Namespace)
	}
	return task{
		subject{name: named(o), file: orphan.Position.File, place: orphan.Position},
		validators.Request{
			Operation: validators.Create, Object: o, Provenance: &validators.Provenance{Unapplied: true, ReferencedBy: orphan.Kustomization},
		},
		&lookup.Memory{},
	}
}

// evaluation collects what the policy says of each object.
type evaluation struct {
	options Options
	report  *report.Report
	said    map[string]bool
	// notGiven are the names of what is missing, by what it is.
	notGiven map[string]map[string]bool
}

// run evaluates the tasks several at a time, and reports them in their order.
func (e *evaluation) run(ctx context.Context, all []task) error {
	workers := e.options.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	decisions := make([]policy.Decision, len(all))
	var next, done atomic.Int64
	var running sync.WaitGroup
	for range min(workers, len(all)) {
		running.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(all) && ctx.Err() == nil; i = next.Add(1) - 1 {
				decisions[i] = e.options.Policy.Evaluate(ctx, all[i].request, all[i].look)
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
	return nil
}

func (e *evaluation) add(s subject, d policy.Decision) {
	r := e.report
	first := len(r.Findings)
	for _, list := range []struct {
		action   v1alpha1.Action
		findings []*validators.Finding
	}{{v1alpha1.ActionDeny, d.Deny}, {v1alpha1.ActionWarn, d.Warn}, {v1alpha1.ActionAudit, d.Audit}} {
		for _, f := range list.findings {
			r.Findings = append(r.Findings, e.finding(s, f, list.action))
			if e.options.Found != nil && s.rendered != nil {
				e.options.Found(s.rendered, f)
			}
		}
	}
	for _, x := range d.Exempted {
		i := slices.IndexFunc(r.Findings[first:], func(f report.Finding) bool {
			return f.ID == x.Finding.Rule.ID && f.Path == x.Finding.Path.String() && f.Message == x.Finding.Message
		})
		if i >= 0 {
			r.Findings[first+i].Suppressed = &report.Suppression{By: report.ByException, Reason: x.Reason}
		}
	}
	e.skipped(s, d.Unknown, true)
	e.skipped(s, d.Skipped, false)
	for _, j := range d.Errors {
		r.Errors = append(r.Errors, report.Error{Rule: j.Rule.Name, ID: j.Rule.ID, Object: &s.name, File: s.file, Message: j.Reason})
	}
}

// skipped says a reason once, however many objects it keeps from being judged.
func (e *evaluation) skipped(s subject, list []policy.NotEvaluated, unknown bool) {
	for _, j := range list {
		if missing, ok := errors.AsType[*validators.MissingInput](j.Cause); ok {
			if e.notGiven[missing.What] == nil {
				e.notGiven[missing.What] = map[string]bool{}
			}
			e.notGiven[missing.What][missing.Name] = true
			continue
		}
		if key := j.Rule.ID + j.Reason; !e.said[key] {
			e.said[key] = true
			e.report.Skipped = append(e.report.Skipped, report.Skipped{Rule: j.Rule.Name, ID: j.Rule.ID, Object: &s.name, Reason: j.Reason, Unknown: unknown})
		}
	}
}

// The texts for what is missing: what it keeps from being judged, and how to give it.
func notGivenText(what string) (text, remedy string) {
	switch what {
	case ChartNotGiven:
		return "the values of releases of charts that are not here were not checked", "give --charts DIR, or --fetch-charts"
	case kindschema.CustomResourceDefinition.Kind:
		return "objects of kinds that no CustomResourceDefinition of the tree declares were checked as far as their kind is known", "give --crds DIR"
	}
	return what + " was not given", ""
}

// ChartNotGiven is what a validators.MissingInput says of a chart that is in none of the directories that are searched.
const ChartNotGiven = "chart"

// sayNotGiven says once of each sort what is missing.
func (e *evaluation) sayNotGiven() {
	for _, what := range slices.Sorted(maps.Keys(e.notGiven)) {
		text, remedy := notGivenText(what)
		names := slices.Sorted(maps.Keys(e.notGiven[what]))
		reason := fmt.Sprintf("%s (%d): %s", text, len(names), strings.Join(names, ", "))
		if remedy != "" {
			reason += "; " + remedy
		}
		e.report.Skipped = append(e.report.Skipped, report.Skipped{Reason: reason, Unknown: true})
	}
}

func (e *evaluation) finding(s subject, f *validators.Finding, action v1alpha1.Action) report.Finding {
	out := report.Finding{
		Rule: f.Rule.Name, ID: f.Rule.ID, Severity: f.Rule.Severity, Action: action, Object: s.name, Kustomization: s.kustomization,
		Message: f.Message, Fix: f.Fix, Fixable: len(f.Edits) > 0, Key: f.Key,
	}
	place := s.place
	if s.rendered != nil {
		out.Path = f.Path.String()
		at := s.rendered.Locate(f.Path)
		place = at.Position
		for _, also := range at.Others {
			out.Related = append(out.Related, report.Position{File: also.Position.File, Line: also.Position.Line, Column: also.Position.Column, Note: string(also.Role)})
		}
	}
	if f.Position.File != "" {
		if own := place; own.File != "" && own != kustomization.Position(f.Position) && s.rendered != nil {
			out.Related = append(out.Related, report.Position{File: own.File, Line: own.Line, Column: own.Column})
		}
		place = kustomization.Position(f.Position)
	}
	for _, also := range f.Related {
		out.Related = append(out.Related, report.Position{File: also.File, Line: also.Line, Column: also.Column})
	}
	out.File, out.Line, out.Column = place.File, place.Line, place.Column
	if f.Rule.Name == e.options.FoldRule {
		out.Fold = e.options.FoldRule
	}
	return out
}

func named(o *unstructured.Unstructured) report.Object {
	return report.Object{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// problem reports what rendering itself found and no rule speaks of: what cannot be known is skipped, the rest keeps the tree from being read.
func (e *evaluation) problem(p *kustomization.Problem) {
	if _, ok := p.ForRules(); ok && p.Kind != kustomization.DecryptionMissing || e.said[p.String()] {
		return
	}
	e.said[p.String()] = true
	switch p.Kind {
	case kustomization.RemoteBase, kustomization.SourceUnknown, kustomization.DecryptionMissing:
		e.report.Skipped = append(e.report.Skipped, report.Skipped{File: p.Position.File, Line: p.Position.Line, Reason: p.Message, Unknown: true})
	case kustomization.PathMissing, kustomization.BuildFailed, kustomization.VariableUnset, kustomization.SpecInvalid, kustomization.DuplicateKey, kustomization.NotYAML, kustomization.FileRefused,
		kustomization.EntryPointMissing:
		e.report.Errors = append(e.report.Errors, report.Error{File: p.Position.File, Line: p.Position.Line, Column: p.Position.Column, Message: p.Message})
	}
}
