package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/chartinput"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// Options are those of a single audit.
type Options struct {
	// Config is the cluster, Name its name in the report.
	Config *rest.Config
	Name   string
	// Policy is a file with the AdmissionPolicy; empty for that of the cluster, or else the default policy.
	Policy string
	// Flags set actions of rules.
	Flags policy.Flags
	// Charts are where charts come from.
	Charts chartinput.Options
	// Excluded are namespaces that the admission webhook does not see.
	Excluded []string
	// Progress is called one at a time with how many objects of all that are known so far were evaluated; nil for nobody.
	Progress func(done, all int)
}

// Run evaluates the objects of a cluster once. An error means that the audit could not run.
func Run(ctx context.Context, o Options) (*report.Report, error) {
	a, err := newAudit(ctx, o)
	if err != nil {
		return nil, err
	}
	charts, closeCharts, err := chartinput.Open(o.Charts)
	if err != nil {
		return nil, err
	}
	defer closeCharts()
	evaluated := Kinds(a.rules.Rules())
	listed := []schema.GroupKind{{Kind: "Namespace"}}
	for _, gk := range slices.Concat(evaluated, Reads(a.rules.Rules())) {
		// Secrets and ConfigMaps are read one by one.
		if gk.Group != "" && !slices.Contains(listed, gk) {
			listed = append(listed, gk)
		}
	}
	var failed map[schema.GroupKind]error
	if a.lookup, failed, err = newSnapshot(ctx, a.client, a.mapper, listed, charts); err != nil {
		return nil, err
	}
	for _, gk := range evaluated {
		if l := a.lookup.kinds[gk]; l != nil {
			a.known += len(l.sorted)
		}
	}
	for _, gk := range evaluated {
		if err := failed[gk]; err != nil {
			a.notListed(gk, err)
			continue
		}
		if err := a.evaluateKind(ctx, gk); err != nil {
			return nil, err
		}
	}
	a.report.Skipped = append(a.report.Skipped, a.missing.Skipped(chartinput.MissingText)...)
	a.report.Normalize()
	return a.report, nil
}

// audit is a single audit.
type audit struct {
	options Options
	client  client.Reader
	mapper  meta.RESTMapper
	rules   *validators.Suite
	policy  *policy.Policy
	lookup  *snapshot

	mu     sync.Mutex
	report *report.Report
	// done is the number of evaluated objects, known that of those that were listed.
	done, known int
	// reported are the reasons for inconclusive rules that the report has already.
	reported map[string]bool
	missing  report.MissingInputs
	// now is when the audit began: its findings are of one time.
	now time.Time
}

func newAudit(ctx context.Context, o Options) (*audit, error) {
	a := &audit{options: o, report: &report.Report{Live: true}, reported: map[string]bool{}, missing: report.MissingInputs{}, now: time.Now()}
	httpClient, err := rest.HTTPClientFor(o.Config)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	if a.mapper, err = apiutil.NewDynamicRESTMapper(o.Config, httpClient); err != nil {
		return nil, fmt.Errorf("reading the kinds of the cluster at %s: %w", o.Config.Host, err)
	}
	if a.client, err = client.New(o.Config, client.Options{HTTPClient: httpClient, Mapper: a.mapper}); err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	if a.rules, err = validators.NewSuite(allvalidators.Rules()...); err != nil {
		return nil, fmt.Errorf("building the suite of rules: %w", err)
	}
	origin, err := a.readPolicy(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range a.policy.Evaluated() {
		if m.Stages.Has(validators.StageAudit) {
			a.report.Rules = append(a.report.Rules, m)
		}
	}
	a.report.Clusters = []report.Cluster{{Name: o.Name, Policy: origin}}
	return a, nil
}

// readPolicy reads the policy, and returns where it comes from.
func (a *audit) readPolicy(ctx context.Context) (origin string, err error) {
	actions, err := a.options.Flags.Actions(a.rules.Rules())
	if err != nil {
		return "", err
	}
	mutations, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		return "", fmt.Errorf("building the set of mutators: %w", err)
	}
	if file := a.options.Policy; file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("--policy: %w", err)
		}
		parsed, err := policy.Parse(file, data)
		if err != nil {
			return "", err
		}
		if a.policy, err = policy.CompileWith(parsed, actions, a.rules, mutations, nil); err != nil {
			err = policy.Locate(err, func(at validators.Path) validators.Position { return policy.PositionIn(file, at) })
		}
		return file, err
	}
	var spec any
	stored := &unstructured.Unstructured{}
	stored.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind))
	err = a.client.Get(ctx, client.ObjectKey{Name: v1alpha1.Name}, stored)
	switch {
	case err == nil:
		origin, spec = "AdmissionPolicy "+v1alpha1.Name, stored.Object["spec"]
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		origin = "the default policy"
		if spec, err = policy.DefaultSpec(); err != nil {
			return "", err
		}
	default:
		return "", fmt.Errorf("reading the AdmissionPolicy of the cluster; --policy FILE is evaluated instead: %w", err)
	}
	reading, err := policy.ReadWith(spec, nil, actions, a.rules, mutations, nil)
	if err != nil {
		return "", fmt.Errorf("reading the AdmissionPolicy of the cluster: %w", err)
	}
	for _, problem := range reading.Problems {
		a.report.Errors = append(a.report.Errors, report.Error{Message: "the AdmissionPolicy of the cluster: " + problem})
	}
	a.policy = reading.Policy
	if a.policy.AuditOnly() {
		origin += " (AuditOnly)"
	}
	return origin, nil
}

// notListed reports a kind that could not be listed.
func (a *audit) notListed(gk schema.GroupKind, err error) {
	reason := fmt.Sprintf("cannot list objects of kind %s: %v", gk, err)
	if apierrors.IsForbidden(err) {
		reason = fmt.Sprintf("no permission to list objects of kind %s", gk)
	}
	a.report.Skipped = append(a.report.Skipped, report.Skipped{Reason: reason, Unknown: true})
}

// evaluateKind evaluates the objects of a kind several at a time, and keeps no more than a page of them.
func (a *audit) evaluateKind(ctx context.Context, gk schema.GroupKind) error {
	err := eachPage(ctx, a.client, a.mapper, gk, func(page []unstructured.Unstructured) error {
		slots := make(chan struct{}, cmp.Or(a.workers(), 1))
		var running sync.WaitGroup
		for i := range page {
			if Exempt(a.rules.Rules(), &page[i], a.options.Excluded) {
				continue
			}
			slots <- struct{}{}
			running.Go(func() {
				defer func() { <-slots }()
				a.add(&page[i], Evaluate(ctx, a.policy, &page[i], a.lookup, false, a.now))
			})
		}
		running.Wait()
		return ctx.Err()
	})
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("evaluating objects, %d done: %w", a.done, ctx.Err())
	case meta.IsNoMatchError(err):
		return nil
	case err != nil:
		a.notListed(gk, err)
	}
	return nil
}

// workers is the number of concurrent evaluations: more than processors where they wait for charts.
func (a *audit) workers() int {
	if a.options.Charts.Fetch {
		return 4 * runtime.GOMAXPROCS(0)
	}
	return runtime.GOMAXPROCS(0)
}

// add adds the decision on an object to the report.
func (a *audit) add(o *unstructured.Unstructured, d policy.Decision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.report
	r.Summary.Objects++
	r.Clusters[0].Objects++
	if o.GroupVersionKind().GroupKind() == flux.Kustomization {
		r.Summary.Kustomizations++
		r.Clusters[0].Kustomizations++
	}
	name := nameOf(o)
	for _, f := range findings(o, d) {
		f.Cluster = a.options.Name
		r.Findings = append(r.Findings, f)
	}
	for _, u := range d.Unknown {
		if input, ok := errors.AsType[*validators.MissingInput](u.Cause); ok {
			a.missing.Add(input)
			continue
		}
		a.skip(name, u, true)
	}
	for _, s := range d.Skipped {
		a.skip(name, s, false)
	}
	for _, e := range d.Errors {
		r.Errors = append(r.Errors, report.Error{Rule: e.Rule.Name, ID: e.Rule.ID, Object: &name, Message: e.Reason})
	}
	if a.done++; a.options.Progress != nil {
		a.options.Progress(a.done, max(a.done, a.known))
	}
}

// skip reports each reason once, however many objects it prevents from being evaluated.
func (a *audit) skip(name report.Object, n policy.NotEvaluated, unknown bool) {
	key := n.Rule.ID + n.Reason
	if a.reported[key] {
		return
	}
	a.reported[key] = true
	a.report.Skipped = append(a.report.Skipped, report.Skipped{
		Rule: n.Rule.Name, ID: n.Rule.ID, Object: &name, Reason: n.Reason, Unknown: unknown,
	})
}
