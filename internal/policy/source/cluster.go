package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
)

const (
	// pollUntilWatched is how often the policy is read while it cannot be watched because its CRD is not installed.
	pollUntilWatched = 2 * time.Second
	requestTimeout   = 10 * time.Second
	resync           = 10 * time.Minute
)

var resource = v1alpha1.GroupVersion.WithResource("admissionpolicies")

// ClusterOptions configure a Cluster.
type ClusterOptions struct {
	// Client reads the AdmissionPolicy and writes its status.
	Client dynamic.Interface
	// Read reads the spec of a stored policy: policy.Read with its other arguments filled in.
	Read Read
	// LimitNew limits rules of the default policy to Warn: policy.LimitNew with its other arguments filled in.
	LimitNew LimitNew
	// Reloaded is called after each load; accepted is false if parts of the policy cannot be used.
	Reloaded Reloaded
	// DefaultMode is the mode of the default policy, which is in force until there is an AdmissionPolicy; default: Enforce.
	DefaultMode v1alpha1.Mode
	// Namespace is where the last policy in force, and the rules that the cluster had, are kept; empty to keep none.
	Namespace string
	// Rules are the names of all rules.
	Rules []string
	Log   logr.Logger
}

// Read reads the spec of a stored policy. The spec that was in force before is nil if there was none.
type Read func(spec any, last map[string]any) (policy.Reading, error)

// LimitNew limits the rules to Warn, in the spec of a policy, that are not known, and returns their names.
type LimitNew func(spec map[string]any, known []string) (limited []string, err error)

// Origin is where the policy in force comes from.
type Origin string

// The origins.
const (
	OriginObject  Origin = "AdmissionPolicy"      // the stored object
	OriginLast    Origin = "last AdmissionPolicy" // a deleted object, or one whose CRD was deleted
	OriginDefault Origin = "default policy"       // there was never an object
)

// InForce is the policy in force in a cluster.
type InForce struct {
	policy.Reading
	Origin Origin
	// Limited are the rules that are limited to Warn because they came after the policy.
	Limited []string
	// Generation and UID are those of the object; zero unless Origin is OriginObject.
	Generation int64
	UID        string
}

// Cluster is the policy of a cluster: its AdmissionPolicy, or the last one if that was deleted, or the default policy if there was none.
type Cluster struct {
	Current
	options ClusterOptions
	client  dynamic.Interface
	log     logr.Logger

	// mu serializes loads. Requests only read Current.
	mu      sync.Mutex
	inForce InForce
	// object is the AdmissionPolicy as it was last seen; nil if there is none.
	object *unstructured.Unstructured
	// kept is the policy that was in force when the last process stopped; nil before it was read.
	kept *kept
	// changed receives a value after a load; it never blocks.
	changed chan struct{}
}

// NewCluster returns the policy of a cluster. It is ready once Start has loaded a policy.
func NewCluster(o ClusterOptions) *Cluster {
	return &Cluster{options: o, client: o.Client, log: o.Log, changed: make(chan struct{}, 1)}
}

// NeedLeaderElection returns false: every replica watches the policy.
func (c *Cluster) NeedLeaderElection() bool { return false }

// Ready returns an error until a policy is in effect.
func (c *Cluster) Ready() error {
	if c.Get() == nil {
		return errors.New("no policy has been loaded")
	}
	return nil
}

// InForce returns the policy in force, and the AdmissionPolicy as it was last seen, nil if there is none. Neither may be changed.
func (c *Cluster) InForce() (InForce, *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inForce, c.object
}

// Start watches the AdmissionPolicy until ctx is done.
func (c *Cluster) Start(ctx context.Context) error {
	informer := dynamicinformer.NewFilteredDynamicInformer(c.client, resource, "", resync, cache.Indexers{}, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", v1alpha1.Name).String()
	}).Informer()
	if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		// Without the CRD every attempt fails. The poll below detects the CRD, and the informer retries on its own.
		c.log.V(1).Info("Failed to watch the AdmissionPolicy; retrying", "error", err.Error())
	}); err != nil {
		return fmt.Errorf("watching the AdmissionPolicy: %w", err)
	}
	handle := func(o any) {
		if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = tombstone.Obj
		}
		if u, ok := o.(*unstructured.Unstructured); ok {
			c.load(u)
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: handle, UpdateFunc: func(_, o any) { handle(o) }, DeleteFunc: func(any) { c.absent() },
	}); err != nil {
		return fmt.Errorf("watching the AdmissionPolicy: %w", err)
	}
	var watching sync.WaitGroup
	watching.Go(func() { informer.RunWithContext(ctx) })
	defer watching.Wait()
	c.poll(ctx)
	ticker := time.NewTicker(pollUntilWatched)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if !informer.HasSynced() || c.Get() == nil {
				c.poll(ctx)
			}
		}
	}
}

// poll reads the policy once.
func (c *Cluster) poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := c.readKept(ctx); err != nil {
		c.log.Error(err, "Failed to read the last AdmissionPolicy in force; retrying", "configMap", c.options.Namespace+"/"+keptName)
		return
	}
	o, err := c.client.Resource(resource).Get(ctx, v1alpha1.Name, metav1.GetOptions{})
	switch {
	case err == nil:
		c.load(o)
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
		c.absent()
	default:
		c.log.Error(err, "Failed to read the AdmissionPolicy; the policy in force stays in force")
	}
}

// load puts what can be used of a stored policy in force.
func (c *Cluster) load(o *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.GetName() != v1alpha1.Name || !o.GetDeletionTimestamp().IsZero() || c.kept == nil {
		return
	}
	c.object = o
	if c.inForce.Origin == OriginObject && c.inForce.UID == string(o.GetUID()) && c.inForce.Generation == o.GetGeneration() {
		return
	}
	last := c.kept.spec
	if c.inForce.Policy != nil {
		last = c.inForce.Spec
	}
	r, err := c.options.Read(o.Object["spec"], last)
	if err != nil {
		c.log.Error(err, "Failed to read the AdmissionPolicy; the policy in force stays in force")
		c.options.Reloaded(false)
		return
	}
	c.put(InForce{
		Reading: r, Origin: OriginObject, Limited: r.Policy.Newer(), Generation: o.GetGeneration(), UID: string(o.GetUID()),
	})
	c.options.Reloaded(len(r.Problems) == 0)
	c.log.Info("Loaded the AdmissionPolicy", "generation", o.GetGeneration(), "auditOnly", r.Policy.AuditOnly(), "notes", r.Notes)
	if len(r.Problems) > 0 {
		c.log.Error(errors.New(strings.Join(r.Problems, "; ")), "Parts of the AdmissionPolicy cannot be used", "generation", o.GetGeneration())
	}
}

// absent puts a policy in force if the cluster has no AdmissionPolicy: the last one, or the default policy if there was none. Deleting a policy, or its
// CRD, never makes anything stricter.
func (c *Cluster) absent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.object = nil
	switch {
	case c.kept == nil || c.inForce.Policy != nil && c.inForce.Origin != OriginObject:
		return
	case c.inForce.Policy != nil:
		c.put(InForce{Reading: c.inForce.Reading, Origin: OriginLast, Limited: c.inForce.Limited})
		c.log.Info("The AdmissionPolicy was deleted; the last one stays in force", "auditOnly", c.inForce.Policy.AuditOnly())
	case c.kept.spec != nil:
		r, err := c.options.Read(c.kept.spec, nil)
		if err != nil {
			c.log.Error(err, "Failed to read the last AdmissionPolicy")
			return
		}
		c.put(InForce{Reading: r, Origin: OriginLast, Limited: r.Policy.Newer()})
		c.log.Info("Found no AdmissionPolicy; the last one stays in force", "auditOnly", r.Policy.AuditOnly())
	default:
		c.useDefault()
	}
}

// useDefault puts the default policy in force, in the mode of the options, or AuditOnly if it cannot be determined whether there was a policy. Rules
// that came after the first start in this cluster warn at most: nobody has chosen them.
func (c *Cluster) useDefault() {
	spec, err := policy.DefaultSpec()
	if err != nil {
		c.log.Error(err, "Failed to read the default policy")
		return
	}
	mode := c.options.DefaultMode
	if c.kept.unknown {
		mode = v1alpha1.ModeAuditOnly
	}
	if mode != "" {
		spec["mode"] = string(mode)
	}
	var limited []string
	if c.kept.rules != nil {
		if limited, err = c.options.LimitNew(spec, c.kept.rules); err != nil {
			c.log.Error(err, "Failed to limit the rules of the default policy")
			return
		}
	}
	r, err := c.options.Read(spec, nil)
	if err != nil {
		c.log.Error(err, "Failed to read the default policy")
		return
	}
	c.put(InForce{Reading: r, Origin: OriginDefault, Limited: limited})
	c.log.Info("Found no AdmissionPolicy; the default policy is in force", "auditOnly", r.Policy.AuditOnly())
	if len(limited) > 0 {
		c.log.Info("New rules of this version are limited to Warn until there is an AdmissionPolicy", "rules", limited)
	}
}

func (c *Cluster) put(f InForce) {
	c.inForce = f
	c.set(f.Policy)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}
