package audit

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/delivery"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators"
)

const (
	// shards is the number of reports that the findings are divided into by object, maxReportBytes the limit of each: together
	// they have at most 4 MiB.
	shards         = 16
	maxReportBytes = 256 << 10
	// reportReserve is what a report has beside its results, at most.
	reportReserve = 2 << 10

	// managedBy is the label of the reports.
	managedBy      = "app.kubernetes.io/managed-by"
	managerName    = "flux-admission"
	omittedFinding = "flux-admission.dev/omitted-findings"

	// reportDelay is how long a change waits for others before it is written, while objects are still being evaluated.
	reportDelay = 5 * time.Second
	// writeTimeout limits one write.
	writeTimeout = 10 * time.Second
)

// Format is an API of reports.
type Format string

// The formats. Both have the same results.
const (
	NoReports    Format = "none"
	OpenReports  Format = "openreports"  // openreports.io/v1alpha1 Report
	PolicyReport Format = "policyreport" // wgpolicyk8s.io/v1alpha2 PolicyReport
)

// Formats returns all formats.
func Formats() []Format { return []Format{NoReports, OpenReports, PolicyReport} }

// kind returns the kind and resource of a format.
func (f Format) kind() (schema.GroupVersionKind, schema.GroupVersionResource) {
	if f == PolicyReport {
		gv := schema.GroupVersion{Group: "wgpolicyk8s.io", Version: "v1alpha2"}
		return gv.WithKind("PolicyReport"), gv.WithResource("policyreports")
	}
	gv := schema.GroupVersion{Group: "openreports.io", Version: "v1alpha1"}
	return gv.WithKind("Report"), gv.WithResource("reports")
}

// Reports writes the findings of a background audit into report objects: failures only, in a fixed number of objects, each of
// which exists only while it has findings. What somebody else edits or deletes is restored. It is a manager.Runnable.
type Reports struct {
	Results *Results
	Client  dynamic.Interface
	Format  Format
	// Namespace is where the reports are.
	Namespace string
	// Leading reports whether this replica writes them.
	Leading func() bool
	Log     logr.Logger

	mu sync.Mutex
	// written are the resource versions of the reports that this process has written, by name.
	written map[string]string
}

// NeedLeaderElection returns false, as for the Auditor.
func (w *Reports) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable: it writes reports until ctx ends.
func (w *Reports) Start(ctx context.Context) error {
	w.written = map[string]string{}
	_, resource := w.Format.kind()
	informer := dynamicinformer.NewFilteredDynamicInformer(w.Client, resource, w.Namespace, 0, cache.Indexers{}, func(o *metav1.ListOptions) {
		o.LabelSelector = managedBy + "=" + managerName
	}).Informer()
	if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		w.Log.V(1).Info("Failed to watch the reports; retrying", "resource", resource.String(), "error", err.Error())
	}); err != nil {
		return fmt.Errorf("watching the reports: %w", err)
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { w.changed(o, false) }, UpdateFunc: func(_, o any) { w.changed(o, false) },
		DeleteFunc: func(o any) { w.changed(o, true) },
	}); err != nil {
		return fmt.Errorf("watching the reports: %w", err)
	}
	var watching sync.WaitGroup
	watching.Go(func() { informer.RunWithContext(ctx) })
	defer watching.Wait()
	limit := rate.NewLimiter(rate.Every(time.Second), 1) // one write a second
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	missing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if !w.Leading() {
			continue
		}
		if !informer.HasSynced() {
			if !missing {
				missing = true
				w.Log.Info("Reports are not written until their CustomResourceDefinition and the permission to list them are there",
					"resource", resource.String())
			}
			continue
		}
		missing = false
		for _, shard := range w.Results.due() {
			if limit.Wait(ctx) != nil || !w.Leading() {
				break
			}
			key := w.Namespace + "/" + shardName(shard)
			item, _, _ := informer.GetStore().GetByKey(key)
			stored, _ := item.(*unstructured.Unstructured)
			err := w.write(ctx, shard, stored)
			if err != nil {
				w.Results.markDirty(shard)
			}
			// The informer is about to receive a newer one.
			if behind := apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err); err != nil && !behind && ctx.Err() == nil {
				w.Log.Error(err, "Failed to write a report; retrying", "report", key)
			}
		}
	}
}

// changed marks the report to write again that somebody else has changed or deleted.
func (w *Reports) changed(o any, deleted bool) {
	if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = tombstone.Obj
	}
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	w.mu.Lock()
	version, known := w.written[u.GetName()]
	w.mu.Unlock()
	if known && !deleted && version == u.GetResourceVersion() || !known && deleted {
		return
	}
	for shard := range shards {
		if shardName(shard) == u.GetName() {
			w.Results.markDirty(shard)
		}
	}
}

// write creates or replaces a report, or deletes it if it has no findings. Stored is the report as the informer has it; nil for
// none.
func (w *Reports) write(ctx context.Context, shard int, stored *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	gvk, resource := w.Format.kind()
	reports := w.Client.Resource(resource).Namespace(w.Namespace)
	name := shardName(shard)
	content, err := w.Results.report(shard)
	if err != nil {
		return err
	}
	if content == nil {
		w.mu.Lock()
		_, known := w.written[name]
		delete(w.written, name)
		w.mu.Unlock()
		if stored == nil && !known {
			return nil
		}
		if err := reports.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting the report: %w", err)
		}
		return nil
	}
	report := &unstructured.Unstructured{Object: content}
	report.SetGroupVersionKind(gvk)
	report.SetNamespace(w.Namespace)
	if stored != nil {
		report.SetResourceVersion(stored.GetResourceVersion())
		report, err = reports.Update(ctx, report, metav1.UpdateOptions{FieldManager: managerName})
	} else {
		report, err = reports.Create(ctx, report, metav1.CreateOptions{FieldManager: managerName})
	}
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	w.mu.Lock()
	w.written[name] = report.GetResourceVersion()
	w.mu.Unlock()
	return nil
}

func shardName(shard int) string { return fmt.Sprintf("flux-admission-%02d", shard) }

// shardOf returns the shard of an object.
func shardOf(id object) int {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%s/%s/%s", id.gk, id.key.Namespace, id.key.Name)
	return int(h.Sum32() % shards)
}

func (r *Results) markDirty(shard int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty[shard] = true
}

// due returns the shards to write now, and marks them as written. Before all objects were evaluated once, there are none.
func (r *Results) due() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.complete.IsZero() || r.expectRoots && !r.roots.known {
		return nil
	}
	if !slices.Contains(r.dirty[:], true) {
		r.since = time.Time{}
		return nil
	}
	if r.since.IsZero() {
		r.since = time.Now()
	}
	if r.pending && time.Since(r.since) < reportDelay {
		return nil
	}
	r.since = time.Time{}
	var out []int
	for i, dirty := range r.dirty {
		if dirty {
			out = append(out, i)
			r.dirty[i] = false
		}
	}
	return out
}

// report returns the report of a shard, in the form that both formats have; nil if it has no findings.
func (r *Results) report(shard int) (map[string]any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []report.Finding
	omitted, count := 0, Count{}
	for id, findings := range r.objects {
		if shardOf(id) == shard {
			list = append(list, findings...)
			c := r.omitted[id]
			omitted += c.Deny + c.Warn + c.Audit
			count.Deny, count.Warn, count.Audit = count.Deny+c.Deny, count.Warn+c.Warn, count.Audit+c.Audit
		}
	}
	for source, findings := range r.builds {
		if shardOf(source) == shard {
			list = append(list, findings...)
		}
	}
	var roots []*delivery.Root
	for _, root := range r.roots.roots {
		if shardOf(objectOf(root.Object)) == shard {
			roots = append(roots, root)
		}
	}
	if len(list)+len(roots) == 0 {
		return nil, nil
	}
	// The strictest actions come first, since what does not fit is left out.
	order := []v1alpha1.Action{v1alpha1.ActionDeny, v1alpha1.ActionWarn, v1alpha1.ActionAudit}
	slices.SortFunc(list, func(a, b report.Finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(order, a.Action), slices.Index(order, b.Action)), cmp.Compare(a.Object.Namespace, b.Object.Namespace),
			cmp.Compare(a.Object.Kind, b.Object.Kind), cmp.Compare(a.Object.Name, b.Object.Name), cmp.Compare(a.ID, b.ID),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message),
		)
	})
	var results []any
	size := 0
	add := func(result map[string]any) error {
		data, err := json.Marshal(result)
		if err != nil {
			return fmt.Errorf("encoding a result: %w", err)
		}
		if size+len(data)+1 > maxReportBytes-reportReserve {
			omitted++
			return nil
		}
		size += len(data) + 1
		results = append(results, result)
		return nil
	}
	for _, root := range roots {
		count.Deny++
		if err := add(resultOfRoot(root)); err != nil {
			return nil, err
		}
	}
	for _, f := range list {
		count.add(f.Action, 1)
		if err := add(resultOf(f)); err != nil {
			return nil, err
		}
	}
	metadata := map[string]any{"name": shardName(shard), "labels": map[string]any{managedBy: managerName}}
	if omitted > 0 {
		metadata["annotations"] = map[string]any{omittedFinding: strconv.Itoa(omitted)}
	}
	return map[string]any{
		"metadata": metadata, "source": managerName,
		"summary": map[string]any{
			"pass": int64(0), "fail": int64(count.Deny), "warn": int64(count.Warn), "error": int64(0), "skip": int64(count.Audit),
		},
		"results": results,
	}, nil
}

// resultOf returns the result of a finding: fail for what would be denied, warn for what would be a warning, and skip for what is
// recorded only.
func resultOf(f report.Finding) map[string]any {
	outcome, severity := "skip", "low"
	switch f.Action {
	case v1alpha1.ActionDeny:
		outcome = "fail"
	case v1alpha1.ActionWarn:
		outcome = "warn"
	case v1alpha1.ActionAudit, v1alpha1.ActionOff:
	}
	switch f.Severity {
	case validators.SeverityError:
		severity = "high"
	case validators.SeverityWarning:
		severity = "medium"
	case validators.SeverityInfo:
	}
	properties := map[string]any{"action": string(f.Action)}
	for name, value := range map[string]string{"path": f.Path, "fix": f.Fix, "kustomization": f.Kustomization} {
		if value != "" {
			properties[name] = value
		}
	}
	if f.Built {
		properties["source"] = "build"
	}
	if f.File != "" {
		properties["file"], properties["line"] = f.File, strconv.Itoa(f.Line)
	}
	resource := map[string]any{"apiVersion": f.Object.APIVersion, "kind": f.Object.Kind, "name": f.Object.Name}
	if f.Object.Namespace != "" {
		resource["namespace"] = f.Object.Namespace
	}
	return map[string]any{
		"source": managerName, "policy": f.Rule, "rule": f.ID, "category": "Flux", "severity": severity, "result": outcome, "scored": true,
		"message": f.Message, "resources": []any{resource}, "properties": properties,
	}
}
