package audit

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/delivery"
)

const (
	// analyzeAfter is how long at least is between two analyses, analyzeAgain when the next one is while something is not ready:
	// objects that have no informer, and the time that something takes, change without an event.
	analyzeAfter = 10 * time.Second
	analyzeAgain = time.Minute
	// maxRootReads is the number of objects without an informer that one analysis reads, rootRate the number of these reads per
	// second, and analyzeTimeout the time for all of them.
	maxRootReads   = 200
	rootRate       = 10
	analyzeTimeout = 45 * time.Second
	// maxNotReady is the number of objects that are not ready and that an analysis begins with.
	maxNotReady = 5000
	// maxRoots is the number of roots that are kept: those with the most objects behind them.
	maxRoots = 100
)

// Roots finds out why objects of the cluster are not ready, in the replica that audits: the roots, which somebody has to repair,
// and how many objects wait for each. It follows the informers, and reads what they do not have one by one, while something is not
// ready. It is a manager.Runnable.
type Roots struct {
	// Cached reads the kinds for which Watched returns true, and Namespaces; Live reads from the API server.
	Cached, Live client.Reader
	Watched      func(schema.GroupKind) bool
	Mapper       meta.RESTMapper
	// Kinds are the kinds with an informer. Their events call Changed.
	Kinds []schema.GroupKind
	// Withheld are namespaces of whose Secrets and ConfigMaps not even the metadata is read.
	Withheld []string
	// Leading reports whether this replica audits.
	Leading func() bool
	// Synced returns an error until the informers have synced.
	Synced  func() error
	Results *Results
	// Events writes an Event for each root; nil for none.
	Events *Events
	Log    logr.Logger

	mu     sync.Mutex
	active bool
	// notReady are the objects of the informers that are not ready, consulted the others that the last analysis looked up there.
	notReady, consulted map[object]struct{}
	dirty               bool
}

// NeedLeaderElection returns false, as for the Auditor.
func (r *Roots) NeedLeaderElection() bool { return false }

// Changed handles an event of an informer, as that of the Auditor does.
func (r *Roots) Changed(gk schema.GroupKind, old, current *unstructured.Unstructured) {
	o := current
	if o == nil {
		o = old
	}
	id := object{gk, client.ObjectKeyFromObject(o)}
	ready := current == nil || delivery.StateOf(current) == delivery.Ready
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.active {
		return // the first analysis looks at all objects
	}
	_, before := r.notReady[id]
	_, consulted := r.consulted[id]
	if ready {
		delete(r.notReady, id)
	} else {
		r.notReady[id] = struct{}{}
	}
	r.dirty = r.dirty || before || consulted || !ready
}

// Start implements manager.Runnable: it analyzes until ctx ends.
func (r *Roots) Start(ctx context.Context) error {
	limit := rate.NewLimiter(rootRate, rootRate)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var last time.Time
	for {
		switch lead := r.Leading(); {
		case !lead && r.active:
			r.mu.Lock()
			r.active = false
			r.mu.Unlock()
			r.Events.forget()
		case lead && !r.active && r.Synced() == nil:
			r.begin(ctx)
			last = time.Time{}
		}
		if r.due(last) {
			r.analyze(ctx, limit)
			last = time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// begin finds the objects that are not ready among those of the informers.
func (r *Roots) begin(ctx context.Context) {
	r.mu.Lock()
	r.active, r.dirty = true, true
	r.notReady, r.consulted = map[object]struct{}{}, map[object]struct{}{}
	r.mu.Unlock()
	for _, gk := range r.Kinds {
		m, err := r.Mapper.RESTMapping(gk)
		if err != nil || !r.watched(gk) {
			continue // the events of its informer, once there is one, bring its objects
		}
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(m.GroupVersionKind.GroupVersion().WithKind(m.GroupVersionKind.Kind + "List"))
		if err := r.Cached.List(ctx, list); err != nil {
			r.Log.Error(err, "Failed to list objects of an informer", "kind", gk.String())
			continue
		}
		for i := range list.Items {
			if delivery.StateOf(&list.Items[i]) == delivery.Ready {
				continue
			}
			r.mu.Lock()
			r.notReady[object{gk, client.ObjectKeyFromObject(&list.Items[i])}] = struct{}{}
			r.mu.Unlock()
		}
	}
}

func (r *Roots) watched(gk schema.GroupKind) bool { return gk == namespaceGK || r.Watched(gk) }

// due reports whether it is time for an analysis.
func (r *Roots) due(last time.Time) bool {
	accepted, known := r.Results.wantsRoots()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.active || !accepted {
		return false
	}
	since := time.Since(last)
	return !known || r.dirty && since >= analyzeAfter || len(r.notReady) > 0 && since >= analyzeAgain
}

// analyze finds the roots and has them reported.
func (r *Roots) analyze(ctx context.Context, limit *rate.Limiter) {
	// What is reported by somebody else must never end the process, which serves webhooks.
	defer func() {
		if p := recover(); p != nil {
			r.Log.Error(fmt.Errorf("panic: %v", p), "Failed to find out why objects are not ready", "stack", string(debug.Stack()))
		}
	}()
	r.mu.Lock()
	r.dirty = false
	begin := make([]object, 0, len(r.notReady))
	for id := range r.notReady {
		begin = append(begin, id)
	}
	r.mu.Unlock()
	slices.SortFunc(begin, compareObjects)
	reading, cancel := context.WithTimeout(ctx, analyzeTimeout)
	defer cancel()
	reader := &rootReader{Roots: r, ctx: reading, limit: limit, consulted: map[object]struct{}{}, refused: map[schema.GroupKind]bool{}}
	in := &delivery.Input{Now: time.Now(), Get: reader.get, Inventory: reader.inventory}
	for _, id := range begin[:min(len(begin), maxNotReady)] {
		if o, _ := reader.cached(id); o != nil {
			in.Objects = append(in.Objects, o)
		}
	}
	report := delivery.Analyze(in)
	r.mu.Lock()
	r.consulted = reader.consulted
	active := r.active
	r.mu.Unlock()
	if !active || !r.Leading() || ctx.Err() != nil {
		return
	}
	for _, added := range r.Results.setRoots(report) {
		r.Log.Info("Found the root of what is not ready", "root", added.Object.String(), "state", added.State, "cause", added.Cause,
			"waiting", len(added.Blocked))
	}
	r.Events.write(ctx, r.Results.certainRoots(), reader.cached)
}

func compareObjects(a, b object) int {
	return cmp.Or(
		cmp.Compare(a.gk.Group, b.gk.Group), cmp.Compare(a.gk.Kind, b.gk.Kind),
		cmp.Compare(a.key.Namespace, b.key.Namespace), cmp.Compare(a.key.Name, b.key.Name),
	)
}

// rootReader reads the objects that one analysis looks up.
type rootReader struct {
	*Roots
	ctx       context.Context //nolint:containedctx // it lives as long as one analysis, whose callbacks have no context
	limit     *rate.Limiter
	reads     int
	consulted map[object]struct{}
	// refused are the kinds that may not be read.
	refused map[schema.GroupKind]bool
}

// get is delivery.Input.Get.
func (r *rootReader) get(ref delivery.Ref) (o *unstructured.Unstructured, known bool) {
	id := object{ref.GroupKind(), types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}}
	if r.watched(id.gk) {
		r.consulted[id] = struct{}{}
		return r.cached(id)
	}
	return r.live(id)
}

// inventory is delivery.Input.Inventory: the informers leave inventories out.
func (r *rootReader) inventory(ref delivery.Ref) *unstructured.Unstructured {
	o, _ := r.live(object{ref.GroupKind(), types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}})
	return o
}

// cached reads an object of an informer.
func (r *Roots) cached(id object) (o *unstructured.Unstructured, known bool) {
	m, err := r.Mapper.RESTMapping(id.gk)
	if err != nil {
		return nil, meta.IsNoMatchError(err)
	}
	o = &unstructured.Unstructured{}
	o.SetGroupVersionKind(m.GroupVersionKind)
	if err := r.Cached.Get(context.Background(), id.key, o); err != nil {
		return nil, apierrors.IsNotFound(err)
	}
	return o, true
}

// live reads an object from the API server; of a Secret or ConfigMap the metadata.
func (r *rootReader) live(id object) (o *unstructured.Unstructured, known bool) {
	m, err := r.Mapper.RESTMapping(id.gk)
	if err != nil {
		// A message names a kind without its group, which is then empty.
		return nil, meta.IsNoMatchError(err) && id.gk.Group != ""
	}
	input := id.gk == secretGK || id.gk == configMapGK
	if r.refused[id.gk] || r.reads >= maxRootReads || input && slices.Contains(r.Withheld, id.key.Namespace) || r.limit.Wait(r.ctx) != nil {
		return nil, false
	}
	r.reads++
	if input {
		metadata := &metav1.PartialObjectMetadata{}
		metadata.SetGroupVersionKind(m.GroupVersionKind)
		if err = r.Live.Get(r.ctx, id.key, metadata); err == nil {
			metadata.ManagedFields, metadata.Annotations = nil, nil
			content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(metadata)
			return &unstructured.Unstructured{Object: content}, err == nil
		}
	} else {
		o = &unstructured.Unstructured{}
		o.SetGroupVersionKind(m.GroupVersionKind)
		if err = r.Live.Get(r.ctx, id.key, o); err == nil {
			return o, true
		}
	}
	r.refused[id.gk] = apierrors.IsForbidden(err)
	return nil, apierrors.IsNotFound(err)
}

// rootState is what is known about what is not ready.
type rootState struct {
	// known means that the roots were looked for since this replica leads.
	known bool
	// summary has the numbers; roots are those that somebody has to repair, at most maxRoots, in the order of the report.
	summary delivery.Summary
	roots   []*delivery.Root
}

// ExpectRoots has no report written before the roots were looked for: an earlier leader may have reported some.
func (r *Results) ExpectRoots() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expectRoots = true
}

// wantsRoots reports whether this replica audits, so that setRoots has an effect, and whether the roots are known since it does.
func (r *Results) wantsRoots() (accepted, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.active, r.roots.known
}

// setRoots replaces the roots, and returns those that are new. It does nothing if this replica does not audit.
func (r *Results) setRoots(report *delivery.Report) (added []*delivery.Root) {
	s := rootState{known: true, summary: report.Summary}
	for _, root := range report.Roots {
		if root.State.Certain() && len(s.roots) < maxRoots {
			root.Message, root.Fix = cut(root.Message), cut(root.Fix)
			s.roots = append(s.roots, root)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.active {
		return nil
	}
	before := map[delivery.Ref]*delivery.Root{}
	for _, root := range r.roots.roots {
		before[root.Object] = root
	}
	for _, root := range s.roots {
		old := before[root.Object]
		delete(before, root.Object)
		if old == nil {
			added = append(added, root)
		}
		if old == nil || !sameRoot(old, root) {
			r.dirty[shardOf(objectOf(root.Object))] = true
		}
	}
	for gone := range before {
		r.dirty[shardOf(objectOf(gone))] = true
	}
	r.roots = s
	return added
}

// certainRoots returns the roots that somebody has to repair.
func (r *Results) certainRoots() []*delivery.Root {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.roots.roots
}

func objectOf(ref delivery.Ref) object {
	return object{ref.GroupKind(), types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}}
}

// sameRoot reports whether a root is reported in the same way.
func sameRoot(a, b *delivery.Root) bool {
	return a.State == b.State && a.Cause == b.Cause && a.Message == b.Message && a.Fix == b.Fix && len(a.Blocked) == len(b.Blocked)
}

// resultOfRoot returns the result of a root in a report.
func resultOfRoot(root *delivery.Root) map[string]any {
	properties := map[string]any{
		"state": string(root.State), "cause": string(root.Cause), "waiting": strconv.Itoa(len(root.Blocked)), "fix": root.Fix,
	}
	if root.Owner != nil {
		properties["owner"] = root.Owner.String()
	}
	if root.Evidence != "" {
		properties["evidence"] = cut(root.Evidence)
	}
	resource := map[string]any{"kind": root.Object.Kind, "name": root.Object.Name}
	if root.Object.Namespace != "" {
		resource["namespace"] = root.Object.Namespace
	}
	message := rootText(root)
	if root.Message != "" {
		message += ": " + root.Message
	}
	return map[string]any{
		"source": managerName, "policy": rootPolicy, "rule": rootPolicy, "category": "Flux", "severity": "high", "result": "fail",
		"scored": true, "message": message, "resources": []any{resource}, "properties": properties,
	}
}

// rootPolicy is the name of the roots where findings have that of a rule.
const rootPolicy = "delivery-root"

// rootText describes a root, without what its status reports.
func rootText(root *delivery.Root) string {
	text := fmt.Sprintf("%s is the root of what is not ready (%s, %s)", root.Object, root.State, root.Cause)
	switch n := len(root.Blocked); n {
	case 0:
		return text
	case 1:
		return text + "; 1 object waits for it"
	default:
		return text + fmt.Sprintf("; %d objects wait for it", n)
	}
}
