package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
)

const (
	// pollUntilWatched is how often the policy is asked for while it cannot be watched, which is while its CRD is not installed.
	pollUntilWatched = 2 * time.Second
	requestTimeout   = 10 * time.Second
	resync           = 10 * time.Minute
	// maxMessage is the limit of a condition's message, in bytes.
	maxMessage = 32 << 10
)

var resource = v1alpha1.GroupVersion.WithResource("admissionpolicies")

// Cluster is the policy of a cluster: its AdmissionPolicy, or the one that ships while there is none.
type Cluster struct {
	Current
	client   dynamic.Interface
	compile  Compile
	reloaded Reloaded
	log      logr.Logger

	// mu guards the order of loads; requests only read Current.
	mu         sync.Mutex
	generation int64 // of the object that was last loaded; 0 for none
	uid        string
}

// NewCluster returns the policy of a cluster. It is not ready before Start has asked for it once.
func NewCluster(client dynamic.Interface, compile Compile, reloaded Reloaded, log logr.Logger) *Cluster {
	return &Cluster{client: client, compile: compile, reloaded: reloaded, log: log}
}

// NeedLeaderElection tells the manager that every replica follows the policy; all of them come to the same status.
func (c *Cluster) NeedLeaderElection() bool { return false }

// Ready is an error until there is a policy in force.
func (c *Cluster) Ready() error {
	if c.Get() == nil {
		return errors.New("no policy is loaded yet")
	}
	return nil
}

// Start follows the AdmissionPolicy until ctx ends.
func (c *Cluster) Start(ctx context.Context) error {
	informer := dynamicinformer.NewFilteredDynamicInformer(c.client, resource, "", resync, cache.Indexers{}, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", v1alpha1.Name).String()
	}).Informer()
	if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		// Without the CRD every attempt fails; the poll below is what notices it, and the informer's own retry what begins to watch.
		c.log.V(1).Info("The AdmissionPolicy cannot be watched yet", "error", err.Error())
	}); err != nil {
		return fmt.Errorf("watching the AdmissionPolicy: %w", err)
	}
	on := func(o any) {
		if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = tombstone.Obj
		}
		if u, ok := o.(*unstructured.Unstructured); ok {
			c.load(ctx, u)
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: on, UpdateFunc: func(_, o any) { on(o) }, DeleteFunc: func(any) { c.absent() },
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

// poll asks for the policy once.
func (c *Cluster) poll(ctx context.Context) {
	get, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	o, err := c.client.Resource(resource).Get(get, v1alpha1.Name, metav1.GetOptions{})
	switch {
	case err == nil:
		c.load(ctx, o)
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
		c.absent()
	default:
		c.log.Error(err, "The AdmissionPolicy cannot be read; what is in force stays in force")
	}
}

// absent puts the policy that ships in force.
func (c *Cluster) absent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Get() != nil && c.uid == "" {
		return
	}
	p, err := shipped(c.compile)
	if err != nil {
		c.log.Error(err, "The policy that ships cannot be used")
		return
	}
	c.set(p)
	c.generation, c.uid = 0, ""
	c.log.Info("No AdmissionPolicy in the cluster: the policy that ships is in force")
}

// load puts a policy in force if it can be used, and says in its status what became of it.
func (c *Cluster) load(ctx context.Context, o *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.GetName() != v1alpha1.Name || !o.GetDeletionTimestamp().IsZero() {
		return
	}
	known := c.uid == string(o.GetUID()) && c.generation == o.GetGeneration()
	p, err := c.use(o)
	if !known {
		c.generation, c.uid = o.GetGeneration(), string(o.GetUID())
		c.reloaded(err == nil)
		if err == nil {
			c.set(p)
			c.log.Info("The AdmissionPolicy is in force", "generation", o.GetGeneration(), "auditOnly", p.AuditOnly())
		} else {
			c.log.Error(err, "The AdmissionPolicy cannot be used; the last good policy stays in force", "generation", o.GetGeneration())
			if c.Get() == nil {
				c.fallBack()
			}
		}
	}
	c.writeStatus(ctx, o, p, err)
}

// fallBack puts the policy that ships in force when the first policy of the cluster cannot be used.
func (c *Cluster) fallBack() {
	p, err := shipped(c.compile)
	if err != nil {
		c.log.Error(err, "The policy that ships cannot be used")
		return
	}
	c.set(p)
}

func (c *Cluster) use(o *unstructured.Unstructured) (*policy.Policy, error) {
	data, err := json.Marshal(map[string]any{
		"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "metadata": map[string]any{"name": o.GetName()}, "spec": o.Object["spec"],
	})
	if err != nil {
		return nil, fmt.Errorf("reading the AdmissionPolicy: %w", err)
	}
	parsed, err := policy.ParseObject(data)
	if err != nil {
		return nil, err
	}
	return c.compile(parsed)
}

// writeStatus says what became of the policy. Several replicas come to the same status, so that only the first one has something to write.
func (c *Cluster) writeStatus(ctx context.Context, o *unstructured.Unstructured, p *policy.Policy, loadErr error) {
	var have v1alpha1.AdmissionPolicyStatus
	if status, ok := o.Object["status"].(map[string]any); ok {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(status, &have); err != nil {
			c.log.V(1).Info("The status of the AdmissionPolicy was not readable and is written anew", "error", err.Error())
		}
	}
	want := *have.DeepCopy()
	want.ObservedGeneration = o.GetGeneration()
	condition := metav1.Condition{Type: v1alpha1.ConditionAccepted, ObservedGeneration: o.GetGeneration()}
	if loadErr == nil {
		condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, "InForce", "This policy is in force"
		if notes := p.Notes(); len(notes) > 0 {
			condition.Message += "; " + strings.Join(notes, "; ")
		}
		want.ActiveRules, want.InactiveRules = p.Rules()
	} else {
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, "Invalid", "The last good policy stays in force: "+loadErr.Error()
	}
	if len(condition.Message) > maxMessage {
		condition.Message = strings.ToValidUTF8(condition.Message[:maxMessage], "")
	}
	meta.SetStatusCondition(&want.Conditions, condition)
	if reflect.DeepEqual(have, want) {
		return
	}
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&want)
	if err != nil {
		c.log.Error(err, "The status of the AdmissionPolicy cannot be written")
		return
	}
	update := o.DeepCopy()
	update.Object["status"] = status
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err = c.client.Resource(resource).UpdateStatus(ctx, update, metav1.UpdateOptions{FieldManager: "flux-admission"})
	// On a conflict a newer object is on its way here, or another replica was first.
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		c.log.Error(err, "The status of the AdmissionPolicy cannot be written")
	}
}
