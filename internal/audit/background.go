package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
)

const (
	// workers is the number of concurrent evaluations.
	workers = 2
	// tick is how often it is determined whether this replica leads, and which policy is in force.
	tick = time.Second
	// readTimeout limits one read of an object.
	readTimeout = 10 * time.Second
	// retry is when an object is evaluated again that could not be read, or whose chart is being read.
	retry = 10 * time.Second
	// syncWait is how long a kind is waited for whose objects could not be listed, because its informer has not synced.
	syncWait = 10 * time.Minute
	// inputInterval is how often the Secrets and ConfigMaps are read that evaluations depend on, of which no informer is kept, and
	// inputRate the limit of these reads per second.
	inputInterval = 30 * time.Second
	inputRate     = 20
)

var (
	namespaceGK = schema.GroupKind{Kind: "Namespace"}
	secretGK    = schema.GroupKind{Kind: "Secret"}
	configMapGK = schema.GroupKind{Kind: "ConfigMap"}
)

// Auditor evaluates the objects of a cluster in the background while its replica leads: all of them once, and after that those
// that change, with those whose evaluation has read what changed. It is a manager.Runnable.
type Auditor struct {
	// Policy returns the policy in force; nil before the first one is loaded.
	Policy func() *policy.Policy
	// Leading reports whether this replica is the one that audits.
	Leading func() bool
	// Objects is the view of other objects. Its informers call Changed.
	Objects *lookup.Cluster
	// Synced returns an error until the informers have synced.
	Synced func() error
	// Live reads whole objects from the API server: informers leave fields out.
	Live   client.Reader
	Mapper meta.RESTMapper
	// Rules are those that are evaluated, of Kinds.
	Rules []*validators.Meta
	Kinds []schema.GroupKind
	// Excluded are namespaces that are not evaluated.
	Excluded []string
	// Interval is how often objects are evaluated again whose chart may have changed in a repository.
	Interval time.Duration
	// Evaluated is called after each evaluation; it may be nil.
	Evaluated func()
	Log       logr.Logger

	once    sync.Once
	queue   workqueue.TypedDelayingInterface[object]
	lookup  *indexed
	results *Results
	// states are the kinds with rules that read the state of the object itself.
	states map[schema.GroupKind]bool

	mu sync.Mutex
	// active means that this replica leads and evaluates.
	active bool
	policy *policy.Policy
	// reads are what the last evaluation of each object has read; readers is the inverse. With a chart are in charts.
	reads   map[object][]dependency
	readers map[dependency]map[object]struct{}
	charts  map[object]struct{}
	// inputs are the resource versions of the Secrets and ConfigMaps that evaluations have read, empty for those that do not exist.
	inputs map[dependency]string
	// busy is the number of evaluations that run.
	busy int

	// awaited are the kinds whose objects are not known yet, since when. Only follow uses it.
	awaited map[schema.GroupKind]time.Time
}

func (a *Auditor) init() {
	a.once.Do(func() {
		a.queue = workqueue.NewTypedDelayingQueue[object]()
		a.lookup = &indexed{Cluster: a.Objects}
		a.results = newResults()
		a.states = stateKinds(a.Rules)
		a.reset()
	})
}

// reset forgets all evaluations. The caller has mu, or is the only one.
func (a *Auditor) reset() {
	a.reads, a.readers, a.charts = map[object][]dependency{}, map[dependency]map[object]struct{}{}, map[object]struct{}{}
	a.inputs = map[dependency]string{}
}

// Results returns what was found.
func (a *Auditor) Results() *Results {
	a.init()
	return a.results
}

// NeedLeaderElection returns false: losing the lead must not end the process, which serves webhooks.
func (a *Auditor) NeedLeaderElection() bool { return false }

// QueueLength returns the number of objects that wait for their evaluation.
func (a *Auditor) QueueLength() int {
	a.init()
	return a.queue.Len()
}

// Changed handles an event of an informer: old is nil for an object that is new to it, current for one that was deleted. It
// returns at once.
func (a *Auditor) Changed(gk schema.GroupKind, old, current *unstructured.Unstructured) {
	a.init()
	o := current
	if o == nil {
		o = old
	}
	id := object{gk, client.ObjectKeyFromObject(o)}
	if old != nil && current != nil && same(old, current) {
		if a.states[gk] && a.stateChanged(id, old, current) {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.active {
				a.queue.Add(id)
			}
		}
		return
	}
	changed := append(a.lookup.changed(gk, id.key, current), dependency{object: id}, dependency{object: object{gk: gk}})
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.active {
		return // the first evaluation of all objects sees it
	}
	if slices.Contains(a.Kinds, gk) && (a.evaluated(old) || a.evaluated(current)) {
		a.queue.Add(id)
	}
	a.enqueueReaders(changed...)
}

// evaluated reports whether rules are evaluated for an object, which may be nil.
func (a *Auditor) evaluated(o *unstructured.Unstructured) bool {
	return o != nil && !Exempt(a.Rules, o, a.Excluded)
}

// same reports whether an object differs in nothing that a rule reads but its own state: a resync, or a status without a new
// artifact.
func same(old, current *unstructured.Unstructured) bool {
	artifact := func(o *unstructured.Unstructured) any {
		v, _, _ := unstructured.NestedFieldNoCopy(o.Object, "status", "artifact")
		return v
	}
	return old.GetUID() == current.GetUID() && old.GetGeneration() == current.GetGeneration() &&
		(current.GetGeneration() != 0 || old.GetResourceVersion() == current.GetResourceVersion()) &&
		equality.Semantic.DeepEqual(old.GetLabels(), current.GetLabels()) &&
		equality.Semantic.DeepEqual(old.GetAnnotations(), current.GetAnnotations()) &&
		old.GetDeletionTimestamp().IsZero() == current.GetDeletionTimestamp().IsZero() &&
		equality.Semantic.DeepEqual(artifact(old), artifact(current))
}

// enqueueReaders enqueues the objects whose evaluation has read something. The caller has mu.
func (a *Auditor) enqueueReaders(of ...dependency) {
	for _, d := range of {
		for reader := range a.readers[d] {
			a.queue.Add(reader)
		}
	}
}

// Start implements manager.Runnable: it audits until ctx ends.
func (a *Auditor) Start(ctx context.Context) error {
	a.init()
	var running sync.WaitGroup
	for range workers {
		running.Go(func() { a.work(ctx) })
	}
	running.Go(func() { a.watchInputs(ctx) })
	running.Go(func() { a.refreshCharts(ctx) })
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		a.follow(ctx)
		select {
		case <-ctx.Done():
			a.queue.ShutDown()
			running.Wait()
			return nil
		case <-ticker.C:
		}
	}
}

// follow starts or stops evaluating with the lead, and evaluates everything again with another policy.
func (a *Auditor) follow(ctx context.Context) {
	p := a.Policy()
	synced := a.Synced() == nil
	a.mu.Lock()
	// An informer that is added later is not waited for: its events bring its objects.
	lead := a.Leading() && p != nil && (a.active || synced)
	begin := lead && (!a.active || a.policy != p)
	if lead != a.active {
		a.results.clear()
	}
	switch {
	case !lead && a.active:
		a.active = false
	case begin && !a.active:
		a.reset()
		a.active, a.policy = true, p
	case begin:
		a.policy = p
	}
	complete := a.active && !begin && a.queue.Len() == 0 && a.busy == 0 && len(a.awaited) == 0
	active := a.active
	a.mu.Unlock()
	switch {
	case begin:
		a.enqueueAll(ctx)
	case active:
		a.enqueueAwaited(ctx)
	}
	if complete && a.results.completed() {
		s := a.results.Summary()
		a.Log.Info("Audited all objects", "objects", s.Objects, "inconclusive", s.Inconclusive, "findings", s.total())
	}
}

// enqueueAll enqueues every object of the kinds.
func (a *Auditor) enqueueAll(ctx context.Context) {
	a.results.began()
	a.awaited = map[schema.GroupKind]time.Time{}
	objects := 0
	for _, gk := range a.Kinds {
		n, err := a.enqueue(ctx, gk)
		objects += n
		switch {
		case errors.Is(err, lookup.ErrNoPermission):
			a.Log.Error(err, "Failed to list objects for the audit, which leaves them out", "kind", gk.String())
		case err != nil:
			a.Log.Info("Objects cannot be listed for the audit yet; their informer is awaited", "kind", gk.String(), "reason", err.Error())
			a.awaited[gk] = time.Now()
		}
	}
	a.Log.Info("Began to audit all objects", "objects", objects)
}

// enqueueAwaited enqueues every object of the kinds whose informers have synced meanwhile. Until then the audit is not complete.
func (a *Auditor) enqueueAwaited(ctx context.Context) {
	for gk, since := range a.awaited {
		if a.Objects.Watched != nil && a.Objects.Watched(gk) {
			n, err := a.enqueue(ctx, gk)
			if err != nil {
				continue
			}
			a.Log.Info("Began to audit the objects of a kind that was awaited", "kind", gk.String(), "objects", n)
		} else if time.Since(since) < syncWait {
			continue
		} else {
			a.Log.Info("The informer of a kind has not synced, and the audit leaves it out until it has", "kind", gk.String(), "waited", syncWait.String())
		}
		delete(a.awaited, gk)
	}
}

// enqueue enqueues every object of a kind, and returns their number.
func (a *Auditor) enqueue(ctx context.Context, gk schema.GroupKind) (int, error) {
	list, presence, err := a.Objects.List(ctx, gk, "")
	if presence != validators.Present {
		return 0, err
	}
	n := 0
	for _, o := range list {
		if a.evaluated(o) {
			a.queue.Add(object{gk, client.ObjectKeyFromObject(o)})
			n++
		}
	}
	return n, nil
}

// work evaluates objects until the queue is shut down.
func (a *Auditor) work(ctx context.Context) {
	for {
		id, stopped := a.queue.Get()
		if stopped {
			return
		}
		a.mu.Lock()
		active, p := a.active, a.policy
		if active {
			a.busy++
		}
		a.mu.Unlock()
		if active {
			if err := a.evaluate(ctx, p, id); err != nil && ctx.Err() == nil {
				a.Log.Error(err, "Failed to audit an object; retrying", "kind", id.gk.String(), "object", id.key.String())
				a.queue.AddAfter(id, retry)
			}
			a.mu.Lock()
			a.busy--
			a.mu.Unlock()
		}
		a.queue.Done(id)
	}
}

// evaluate evaluates an object, and records its findings and what was read for it.
func (a *Auditor) evaluate(ctx context.Context, p *policy.Policy, id object) error {
	o, err := a.read(ctx, id)
	if err != nil {
		return err
	}
	if !a.evaluated(o) {
		a.record(id, nil)
		a.results.remove(id)
		return nil
	}
	r := &recorder{Lookup: a.lookup, reading: func(d dependency) { a.reading(id, d) }, input: a.input}
	now := time.Now()
	d := Evaluate(chartsource.WithBudget(ctx, 0), p, o, r, true, now)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if a.Evaluated != nil {
		a.Evaluated()
	}
	if !a.record(id, r) {
		return nil
	}
	a.results.put(id, findings(o, d), len(d.Unknown)+len(d.Errors) > 0)
	if !d.Next.IsZero() {
		// The queue has an object once, with the earliest of its times.
		a.queue.AddAfter(id, max(d.Next.Sub(now), tick))
	}
	for _, u := range d.Unknown {
		if _, ok := errors.AsType[*validators.Pending](u.Cause); ok {
			a.queue.AddAfter(id, retry)
			break
		}
	}
	return nil
}

// read returns a whole object; nil if there is none.
func (a *Auditor) read(ctx context.Context, id object) (*unstructured.Unstructured, error) {
	m, err := a.Mapper.RESTMapping(id.gk)
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the version of %s: %w", id.gk, err)
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(m.GroupVersionKind)
	if err := a.Live.Get(ctx, id.key, o); apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", id.gk.Kind, id.key, err)
	}
	return o, nil
}

// reading records that the evaluation of an object reads something.
func (a *Auditor) reading(id object, d dependency) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.object == id {
		return
	}
	if a.readers[d] == nil {
		a.readers[d] = map[object]struct{}{}
	}
	a.readers[d][id] = struct{}{}
}

// input records the resource version of a Secret or ConfigMap. Evaluations that have read another one are enqueued.
func (a *Auditor) input(d dependency, version string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if before, known := a.inputs[d]; known && before != version {
		a.enqueueReaders(d)
	}
	a.inputs[d] = version
}

// record replaces what the evaluation of an object has read; a nil recorder removes it. It returns false if this replica does
// not lead any longer.
func (a *Auditor) record(id object, r *recorder) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	reads := map[dependency]struct{}{}
	if r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		reads = r.reads
	}
	keep := r != nil && a.active
	remove := func(d dependency) {
		delete(a.readers[d], id)
		if len(a.readers[d]) == 0 {
			delete(a.readers, d)
			delete(a.inputs, d)
		}
	}
	for _, d := range a.reads[id] {
		if _, again := reads[d]; !again || !keep {
			remove(d)
		}
	}
	delete(a.reads, id)
	delete(a.charts, id)
	list := make([]dependency, 0, len(reads))
	for d := range reads {
		if !keep {
			remove(d)
		}
		list = append(list, d)
	}
	if !keep {
		return false
	}
	a.reads[id] = list
	if r.chart {
		a.charts[id] = struct{}{}
	}
	return true
}

// refreshCharts enqueues the objects with a chart at each interval: a repository does not notify of a new version.
func (a *Auditor) refreshCharts(ctx context.Context) {
	ticker := time.NewTicker(a.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		a.mu.Lock()
		for id := range a.charts {
			a.queue.Add(id)
		}
		a.mu.Unlock()
	}
}

// watchInputs reads the metadata of the Secrets and ConfigMaps that evaluations depend on, and enqueues those evaluations when it
// changes. A watch would need the permission to list all Secrets.
func (a *Auditor) watchInputs(ctx context.Context) {
	limit := rate.NewLimiter(inputRate, inputRate)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(inputInterval):
		}
		a.mu.Lock()
		inputs := slices.Collect(maps.Keys(a.inputs))
		a.mu.Unlock()
		for _, d := range inputs {
			if limit.Wait(ctx) != nil {
				return
			}
			version, known := a.inputVersion(ctx, d)
			a.mu.Lock()
			if before, read := a.inputs[d]; known && read && version != before {
				a.inputs[d] = version
				a.enqueueReaders(d)
			}
			a.mu.Unlock()
		}
	}
}

// inputVersion returns the version of a Secret or ConfigMap, empty if there is none; false if it cannot be read.
func (a *Auditor) inputVersion(ctx context.Context, d dependency) (version string, known bool) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(d.gk.WithVersion("v1"))
	err := a.Live.Get(ctx, types.NamespacedName{Namespace: d.key.Namespace, Name: d.key.Name}, o)
	if apierrors.IsNotFound(err) {
		return "", true
	}
	return o.ResourceVersion, err == nil
}
