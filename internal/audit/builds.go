package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/pkg/tar"
	"github.com/go-logr/logr"
	"github.com/opencontainers/go-digest"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// What is not built for its size, and for how long a build may run.
const (
	// maxArtifactBytes limits a packed artifact, maxUnpackedBytes what is unpacked of it, maxArtifactFiles its files.
	maxArtifactBytes = 16 << 20
	maxUnpackedBytes = 48 << 20
	maxArtifactFiles = 20_000
	// maxFileBytes limits each file that a build reads, maxBuildBytes all of them for one Kustomization, maxBuildObjects its objects, and maxBuildNodes
	// the values in a file.
	maxFileBytes    = 256 << 10
	maxBuildBytes   = 512 << 10
	maxBuildObjects = 500
	maxBuildNodes   = 50_000
	// maxBuilds limits the Kustomizations of one artifact.
	maxBuilds = 1_000
	// buildMemory is what a build takes of the memory for reviews, in bytes.
	buildMemory = 32 << 20

	artifactTimeout = 5 * time.Minute
	fetchTimeout    = time.Minute
	buildTimeout    = 30 * time.Second
	// buildDelay is how long a change waits for others: a source and its Kustomizations often change together.
	buildDelay = time.Second
	// maxRetries limits how often an artifact is built again since it could not be read or a chart was being read.
	maxRetries = 5
)

// sourceKinds are the kinds with artifacts that Kustomizations are built from.
var sourceKinds = []schema.GroupKind{flux.GitRepository, flux.OCIRepository, flux.Bucket, flux.ExternalArtifact}

// BuildOutcome is how the build of a Kustomization, or the reading of an artifact, ended.
type BuildOutcome string

// The outcomes.
const (
	BuildEvaluated BuildOutcome = "evaluated"
	BuildTooLarge  BuildOutcome = "too-large"
	BuildFailed    BuildOutcome = "failed"
)

// BuildOutcomes returns all outcomes.
func BuildOutcomes() []BuildOutcome {
	return []BuildOutcome{BuildEvaluated, BuildTooLarge, BuildFailed}
}

// Builder evaluates what Flux is about to apply: when a source has a new artifact, it builds the Kustomizations that use it, one at a time, and evaluates
// their objects as check does. Its findings are among the Results of the Auditor until the next artifact replaces them. It is a manager.Runnable.
type Builder struct {
	// Results are those of the Auditor: while it is active, so is the Builder.
	Results *Results
	// Policy returns the policy in force.
	Policy func() *policy.Policy
	// Objects is the view of the cluster.
	Objects *lookup.Cluster
	// Live reads whole objects from the API server.
	Live   client.Reader
	Mapper meta.RESTMapper
	// Dir is the directory to unpack artifacts in.
	Dir string
	// Hosts are the hosts that artifacts are fetched from, with or without a port, beside those of Flux's own controllers.
	Hosts []string
	// AllowLoopback lets artifacts be fetched from loopback and link-local addresses.
	AllowLoopback bool
	// Excluded are namespaces that are not evaluated.
	Excluded []string
	// Reserve takes memory of that for reviews, and waits for it until the context ends. The caller calls the function to give it back.
	Reserve func(ctx context.Context, bytes int64) (func(), error)
	// Interval is how often an artifact with findings or inconclusive rules is built again.
	Interval time.Duration
	// Observe is called for each Kustomization, and each artifact that could not be read; it may be nil.
	Observe func(BuildOutcome)
	Log     logr.Logger

	once  sync.Once
	queue workqueue.TypedDelayingInterface[object]

	mu sync.Mutex
	// retries counts the builds of an artifact without a result, by source. Logged are the revisions whose result was logged.
	retries map[object]int
	logged  map[object]string
	// again are the sources with findings or inconclusive rules.
	again map[object]struct{}
}

func (b *Builder) init() {
	b.once.Do(func() {
		b.queue = workqueue.NewTypedDelayingQueue[object]()
		b.retries, b.logged, b.again = map[object]int{}, map[object]string{}, map[object]struct{}{}
	})
}

// NeedLeaderElection returns false, as for the Auditor.
func (b *Builder) NeedLeaderElection() bool { return false }

// Changed handles an event of an informer, as Auditor.Changed does.
func (b *Builder) Changed(gk schema.GroupKind, old, current *unstructured.Unstructured) {
	b.init()
	if old != nil && current != nil && same(old, current) {
		return
	}
	for _, o := range []*unstructured.Unstructured{old, current} {
		switch {
		case o == nil:
		case slices.Contains(sourceKinds, gk):
			b.enqueue(object{gk, client.ObjectKeyFromObject(o)})
		case gk == flux.Kustomization:
			b.enqueue(sourceOf(o))
		}
	}
}

func (b *Builder) enqueue(id object) {
	b.mu.Lock()
	delete(b.retries, id)
	b.mu.Unlock()
	b.queue.AddAfter(id, buildDelay)
}

// sourceOf returns the source of a Kustomization.
func sourceOf(o *unstructured.Unstructured) object {
	ref := flux.SourceOf(o)
	return object{schema.GroupKind{Group: ref.Group, Kind: ref.Kind}, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}}
}

// Start implements manager.Runnable: it builds until ctx ends.
func (b *Builder) Start(ctx context.Context) error {
	b.init()
	var running sync.WaitGroup
	running.Go(func() { b.work(ctx) })
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var last uint64
	refreshed := time.Now()
	for {
		if term := b.Results.term(); term != last {
			last = term
			b.enqueueAll(ctx)
		}
		if time.Since(refreshed) >= b.Interval {
			refreshed = time.Now()
			b.mu.Lock()
			for id := range b.again {
				b.queue.Add(id)
			}
			b.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			b.queue.ShutDown()
			running.Wait()
			return nil
		case <-ticker.C:
		}
	}
}

// enqueueAll enqueues every source.
func (b *Builder) enqueueAll(ctx context.Context) {
	for _, gk := range sourceKinds {
		list, _, _ := b.Objects.List(ctx, gk, "")
		for _, o := range list {
			b.enqueue(object{gk, client.ObjectKeyFromObject(o)})
		}
	}
}

func (b *Builder) work(ctx context.Context) {
	for {
		id, stopped := b.queue.Get()
		if stopped {
			return
		}
		if term := b.Results.term(); term != 0 {
			b.handle(ctx, term, id)
		}
		b.queue.Done(id)
	}
}

// handle builds an artifact and records the result.
func (b *Builder) handle(ctx context.Context, term uint64, source object) {
	result, err := b.evaluate(ctx, source)
	if ctx.Err() != nil {
		return
	}
	retry := result.pending || err != nil
	b.mu.Lock()
	delete(b.again, source)
	b.retries[source]++
	if retry = retry && b.retries[source] <= maxRetries; !retry {
		delete(b.retries, source)
	}
	if len(result.findings) > 0 || result.inconclusive || err != nil {
		b.again[source] = struct{}{}
	}
	first := result.revision != "" && b.logged[source] != result.revision
	if first && err == nil {
		b.logged[source] = result.revision
	}
	b.mu.Unlock()
	if retry {
		b.queue.AddAfter(source, retryBuild)
	}
	if err != nil {
		b.Log.Error(err, "Failed to build the Kustomizations of an artifact", "kind", source.gk.Kind, "source", source.key.String())
		return
	}
	if first {
		b.Log.Info("Built the Kustomizations of an artifact", "kind", source.gk.Kind, "source", source.key.String(), "revision", result.revision,
			"kustomizations", result.built, "tooLarge", result.tooLarge, "findings", len(result.findings))
		for i := range result.findings {
			f := &result.findings[i]
			if !f.Counts() {
				continue
			}
			b.Log.Info("Found a violation in an artifact", "rule", f.Rule, "action", string(f.Action), "object", f.Object.Kind+" "+f.Object.Namespace+"/"+f.Object.Name,
				"position", f.Position().String(), "kustomization", f.Kustomization, "revision", result.revision)
		}
	}
	b.Results.putBuild(term, source, result.findings)
}

// retryBuild is when an artifact is built again that could not be read, or with a chart that is being read.
const retryBuild = 15 * time.Second

// artifactResult is what is known of the Kustomizations of an artifact.
type artifactResult struct {
	revision              string
	findings              []report.Finding
	built, tooLarge       int
	inconclusive, pending bool
}

// evaluate builds and evaluates the Kustomizations of a source; there is nothing to build without an artifact.
func (b *Builder) evaluate(ctx context.Context, source object) (artifactResult, error) {
	var out artifactResult
	o, presence, err := b.Objects.Get(ctx, source.gk, source.key)
	if presence == validators.Unknown {
		return out, err
	}
	if presence != validators.Present || b.exempt(o) {
		return out, nil
	}
	location, _, _ := unstructured.NestedString(o.Object, "status", "artifact", "url")
	sum, _, _ := unstructured.NestedString(o.Object, "status", "artifact", "digest")
	out.revision, _, _ = unstructured.NestedString(o.Object, "status", "artifact", "revision")
	if location == "" {
		return out, nil
	}
	stored, err := b.stored(ctx, source)
	if err != nil || len(stored) == 0 {
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, artifactTimeout)
	defer cancel()
	dir, err := os.MkdirTemp(b.Dir, "artifact-")
	if err != nil {
		return out, fmt.Errorf("creating a directory for the artifact: %w", err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Log.Error(err, "Failed to delete an unpacked artifact", "directory", dir)
		}
	}()
	if err := b.unpack(ctx, location, sum, dir); err != nil {
		b.observe(BuildFailed)
		return out, err
	}
	return b.evaluateAll(ctx, dir, stored, out)
}

// stored returns the Kustomizations that are built from a source, each with the Kustomization that applies it.
func (b *Builder) stored(ctx context.Context, source object) (map[types.NamespacedName]types.NamespacedName, error) {
	list, presence, err := b.Objects.List(ctx, flux.Kustomization, "")
	if presence != validators.Present {
		return nil, err
	}
	out := map[types.NamespacedName]types.NamespacedName{}
	for _, k := range list {
		if sourceOf(k) == source {
			labels := k.GetLabels()
			out[client.ObjectKeyFromObject(k)] = types.NamespacedName{
				Namespace: labels["kustomize.toolkit.fluxcd.io/namespace"], Name: labels["kustomize.toolkit.fluxcd.io/name"],
			}
		}
	}
	return out, nil
}

// allowed reports whether artifacts are fetched from a host.
func (b *Builder) allowed(u *url.URL) bool {
	if slices.Contains(b.Hosts, u.Host) || slices.Contains(b.Hosts, u.Hostname()) {
		return true
	}
	name := strings.TrimSuffix(u.Hostname(), ".")
	for _, service := range []string{"source-controller.flux-system", "source-watcher.flux-system"} {
		if name == service || name == service+".svc" || strings.HasPrefix(name, service+".svc.") {
			return true
		}
	}
	return false
}

// unpack fetches an artifact, verifies its digest, and unpacks it into a directory.
func (b *Builder) unpack(ctx context.Context, location, sum, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	u, err := url.Parse(location)
	if err != nil || !b.allowed(u) {
		return fmt.Errorf("the artifact is at a host that is neither Flux's own controller nor one of --artifact-host: %s", host(u))
	}
	want, err := digest.Parse(sum)
	if err != nil {
		return fmt.Errorf("reading the digest of the artifact: %w", err)
	}
	c, err := fetch.NewClient(location, fetch.Credentials{}, b.AllowLoopback)
	if err != nil {
		return fmt.Errorf("fetching the artifact: %w", err)
	}
	defer c.Close()
	packed, err := os.Create(filepath.Join(dir, "artifact.tar.gz"))
	if err != nil {
		return fmt.Errorf("storing the artifact: %w", err)
	}
	defer func() { _ = packed.Close() }()
	if err := c.ReadVerified(ctx, location, maxArtifactBytes, want, func(r io.Reader) error {
		_, err := io.Copy(packed, r)
		return err
	}); err != nil {
		return fmt.Errorf("fetching the artifact: %w", err)
	}
	if _, err := packed.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading the artifact: %w", err)
	}
	files := 0
	if err := tar.Untar(packed, filepath.Join(dir, "tree"), tar.WithMaxUntarSize(maxUnpackedBytes), tar.WithSkipSymlinks(),
		tar.WithFilter(func(string, os.FileInfo) bool { files++; return files > maxArtifactFiles })); err != nil {
		return fmt.Errorf("unpacking the artifact: %w", err)
	}
	if files > maxArtifactFiles {
		return fmt.Errorf("the artifact has %d files, more than %d", files, maxArtifactFiles)
	}
	return nil
}

func host(u *url.URL) string {
	if u == nil {
		return "the URL is invalid"
	}
	return u.Host
}

// unit is a Kustomization to build.
type unit struct {
	kustomization.Applied
	result check.Applied
	// children are the Kustomizations that it applies; applies is false if Flux does not apply it, or not all of its objects are known.
	children []kustomization.Applied
	applies  bool
}

// evaluateAll builds and evaluates the Kustomizations of an unpacked artifact: those that the cluster has, with the Kustomization that applies each of
// them, and those that they apply. Of one that another one applies, the new definition is built; without it, it is about to be deleted.
func (b *Builder) evaluateAll(ctx context.Context, dir string, stored map[types.NamespacedName]types.NamespacedName, out artifactResult) (artifactResult, error) {
	var units []*unit
	known := map[types.NamespacedName]*unit{}
	add := func(a kustomization.Applied) {
		if key := client.ObjectKeyFromObject(a.Unstructured); known[key] == nil {
			known[key] = &unit{Applied: a}
			units = append(units, known[key])
		}
	}
	d := definitions{builder: b, stored: map[schema.GroupKind]*unstructured.Unstructured{}, changed: map[schema.GroupKind]bool{}}
	for i := 0; ; i++ {
		if i == len(units) {
			key, ok := next(stored, known)
			if !ok {
				break
			}
			o, err := b.kustomization(ctx, key)
			if err != nil {
				return out, err
			}
			if o == nil {
				delete(stored, key)
				i--
				continue
			}
			add(kustomization.Applied{Unstructured: o, Document: -1})
		}
		if i == maxBuilds {
			b.Log.Info("An artifact has too many Kustomizations; the others are not built", "limit", maxBuilds)
			break
		}
		u := units[i]
		switch err := b.build(ctx, dir, u, &d); {
		case errors.Is(err, errTooLarge):
			out.tooLarge++
			b.Log.Info("A Kustomization is too large to be built ahead of Flux", "kustomization", client.ObjectKeyFromObject(u.Unstructured).String(),
				"revision", out.revision, "limitBytes", maxBuildBytes)
			b.observe(BuildTooLarge)
		case err != nil:
			b.observe(BuildFailed)
			return out, err
		default:
			out.built++
			b.observe(BuildEvaluated)
		}
		for _, child := range u.children {
			add(child)
		}
	}
	for _, u := range units {
		// That another Kustomization of the artifact changes a definition was not known when these were evaluated.
		if slices.ContainsFunc(u.result.Kinds, func(gk schema.GroupKind) bool { return d.changed[gk] }) {
			if err := b.build(ctx, dir, u, &d); err != nil {
				return out, err
			}
		}
		out.findings = append(out.findings, u.result.Findings...)
		out.inconclusive = out.inconclusive || u.result.Inconclusive
		out.pending = out.pending || u.result.Pending
	}
	return out, nil
}

// next returns the first stored Kustomization that is not known and that no other one of the source is about to apply: it has no owner there, its owner
// does not apply its objects.
func next(stored map[types.NamespacedName]types.NamespacedName, known map[types.NamespacedName]*unit) (types.NamespacedName, bool) {
	keys := slices.SortedFunc(maps.Keys(stored), func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
	for _, key := range keys {
		owner := stored[key]
		_, owned := stored[owner]
		if known[key] == nil && (!owned || owner == key || known[owner] != nil && !known[owner].applies) {
			return key, true
		}
	}
	return types.NamespacedName{}, false
}

// kustomization reads a whole Kustomization; nil if there is none any longer.
func (b *Builder) kustomization(ctx context.Context, key types.NamespacedName) (*unstructured.Unstructured, error) {
	m, err := b.Mapper.RESTMapping(flux.Kustomization)
	if err != nil {
		return nil, fmt.Errorf("reading the version of Kustomizations: %w", err)
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(m.GroupVersionKind)
	if err := b.Live.Get(ctx, key, o); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading the Kustomization %s: %w", key, err)
	}
	return o, nil
}

func (b *Builder) observe(o BuildOutcome) {
	if b.Observe != nil {
		b.Observe(o)
	}
}

// errTooLarge means that a Kustomization is not built, since it reads too much.
var errTooLarge = errors.New("the Kustomization is too large")

// build builds and evaluates one Kustomization. One that is suspended, or applies to another cluster, is left out.
func (b *Builder) build(ctx context.Context, dir string, u *unit, d *definitions) (err error) {
	u.result, u.children, u.applies = check.Applied{}, nil, false
	suspended, _, _ := unstructured.NestedBool(u.Object, "spec", "suspend")
	if _, remote, _ := unstructured.NestedMap(u.Object, "spec", "kubeConfig"); suspended || remote || b.exempt(u.Unstructured) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	release, err := b.Reserve(ctx, buildMemory)
	if err != nil {
		return fmt.Errorf("waiting for memory: %w", err)
	}
	defer release()
	tree, err := sourcetree.Open(ctx, filepath.Join(dir, "tree"), "", sourcetree.Limits{
		FileBytes: maxFileBytes, TreeBytes: maxBuildBytes, Files: maxArtifactFiles, Objects: maxBuildObjects, Nodes: maxBuildNodes,
	})
	if err != nil {
		return fmt.Errorf("opening the unpacked artifact: %w", err)
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	applied := u.Applied
	applied.Inputs = b.inputs(ctx, u.Unstructured)
	built := kustomization.BuildApplied(tree, applied)
	root := built.Root()
	if tree.Exceeded() || root.TooLarge() {
		return errTooLarge
	}
	d.add(ctx, built)
	u.result, err = check.EvaluateApplied(chartsource.WithBudget(ctx, 0), built, check.Cluster{
		Policy: b.Policy(), Lookup: b.Objects, Definition: d.get, Excluded: b.Excluded,
	})
	if err != nil {
		return err
	}
	for i := range u.result.Findings {
		f := &u.result.Findings[i]
		f.Of, f.Built = nil, true // the finding refers to the build
	}
	if u.applies = root.State >= kustomization.Partial; u.applies {
		u.children = kustomization.ChildrenOf(root)
	}
	return nil
}

// inputs returns the ConfigMaps that a Kustomization takes variables from. Secrets are not read: their values would be in messages.
func (b *Builder) inputs(ctx context.Context, k *unstructured.Unstructured) []*unstructured.Unstructured {
	list, _, _ := unstructured.NestedSlice(k.Object, "spec", "postBuild", "substituteFrom")
	var out []*unstructured.Unstructured
	for _, item := range list {
		from, _ := item.(map[string]any)
		name, _ := from["name"].(string)
		if from["kind"] != configMapGK.Kind || name == "" {
			continue
		}
		key := types.NamespacedName{Namespace: k.GetNamespace(), Name: name}
		if o, presence, _ := b.Objects.Get(ctx, configMapGK, key); presence == validators.Present {
			out = append(out, o)
		}
	}
	return out
}

// definitions are the CustomResourceDefinitions of the cluster, and the kinds whose definition an artifact changes.
type definitions struct {
	builder *Builder
	// stored has a nil for a kind without a definition that could be read.
	stored  map[schema.GroupKind]*unstructured.Unstructured
	changed map[schema.GroupKind]bool
}

// add records the definitions in a build that differ from those of the cluster.
func (d *definitions) add(ctx context.Context, built *kustomization.Result) {
	for _, o := range built.Clusters[0].Objects {
		if o.GroupVersionKind().GroupKind() != kindschema.CustomResourceDefinition {
			continue
		}
		gk := kindschema.DefinedKind(o.Unstructured)
		stored := d.read(ctx, gk)
		if stored == nil || !equality.Semantic.DeepEqual(schemasOf(o.Unstructured), schemasOf(stored)) {
			d.changed[gk] = true
		}
	}
}

// schemasOf returns the schemas of a definition by version.
func schemasOf(crd *unstructured.Unstructured) map[string]any {
	out := map[string]any{}
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		version, _ := v.(map[string]any)
		name, _ := version["name"].(string)
		out[name] = version["schema"]
	}
	return out
}

// get returns the definition of a kind, as check.Cluster has it.
func (d *definitions) get(ctx context.Context, gk schema.GroupKind) *unstructured.Unstructured {
	if d.changed[gk] {
		return nil
	}
	return d.read(ctx, gk)
}

// read returns the definition that the cluster has; nil if there is none or it cannot be read.
func (d *definitions) read(ctx context.Context, gk schema.GroupKind) *unstructured.Unstructured {
	if o, known := d.stored[gk]; known {
		return o
	}
	d.stored[gk] = nil
	m, err := d.builder.Mapper.RESTMapping(gk)
	if err != nil {
		return nil
	}
	name := types.NamespacedName{Name: m.Resource.Resource + "." + gk.Group}
	o, presence, err := d.builder.Objects.Get(ctx, kindschema.CustomResourceDefinition, name)
	if presence == validators.Unknown {
		d.builder.Log.V(1).Info("Failed to read a CustomResourceDefinition", "name", name.Name, "error", fmt.Sprint(err))
	}
	d.stored[gk] = o
	return o
}

// exempt reports whether nothing is built for an object: it is being deleted, or its namespace is excluded.
func (b *Builder) exempt(o *unstructured.Unstructured) bool {
	return o.GetDeletionTimestamp() != nil || slices.Contains(b.Excluded, o.GetNamespace())
}
