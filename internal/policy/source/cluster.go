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
	// pollUntilWatched is how often the policy is read while it cannot be watched because its CRD is not installed.
	pollUntilWatched = 2 * time.Second
	requestTimeout   = 10 * time.Second
	resync           = 10 * time.Minute
	// maxMessage is the API server's limit on the message of a condition, in bytes.
	maxMessage = 32 << 10
)

var resource = v1alpha1.GroupVersion.WithResource("admissionpolicies")

// Cluster is the policy of a cluster: its AdmissionPolicy, or the default policy if there is none.
type Cluster struct {
	Current
	client   dynamic.Interface
	compile  Compile
	reloaded Reloaded
	log      logr.Logger

	// mu serializes loads. Requests only read Current.
	mu         sync.Mutex
	generation int64 // of the last loaded object; 0 if there is none
	uid        string
}

// NewCluster returns the policy of a cluster. It is ready once Start has loaded a policy.
func NewCluster(client dynamic.Interface, compile Compile, reloaded Reloaded, log logr.Logger) *Cluster {
	return &Cluster{client: client, compile: compile, reloaded: reloaded, log: log}
}

// NeedLeaderElection returns false: every replica watches the policy, and all compute the same status.
func (c *Cluster) NeedLeaderElection() bool { return false }

// Ready returns an error until a policy is in effect.
func (c *Cluster) Ready() error {
	if c.Get() == nil {
		return errors.New("no policy has been loaded")
	}
	return nil
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
			c.load(ctx, u)
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: handle, UpdateFunc: func(_, o any) { handle(o) }, DeleteFunc: func(any) { c.useDefault() },
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
	get, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	o, err := c.client.Resource(resource).Get(get, v1alpha1.Name, metav1.GetOptions{})
	switch {
	case err == nil:
		c.load(ctx, o)
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
		c.useDefault()
	default:
		c.log.Error(err, "Failed to read the AdmissionPolicy; the last valid policy stays in effect")
	}
}

// useDefault puts the default policy into effect when the cluster has no AdmissionPolicy.
func (c *Cluster) useDefault() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Get() != nil && c.uid == "" {
		return
	}
	if c.setDefault() {
		c.generation, c.uid = 0, ""
		c.log.Info("Found no AdmissionPolicy; the default policy is in effect")
	}
}

// load puts a valid policy into effect, and writes the result to the status of the AdmissionPolicy.
func (c *Cluster) load(ctx context.Context, o *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.GetName() != v1alpha1.Name || !o.GetDeletionTimestamp().IsZero() {
		return
	}
	loaded := c.uid == string(o.GetUID()) && c.generation == o.GetGeneration()
	p, err := c.compileObject(o)
	if !loaded {
		c.generation, c.uid = o.GetGeneration(), string(o.GetUID())
		c.reloaded(err == nil)
		if err == nil {
			c.set(p)
			c.log.Info("Loaded the AdmissionPolicy", "generation", o.GetGeneration(), "auditOnly", p.AuditOnly())
		} else {
			c.log.Error(err, "The AdmissionPolicy is invalid; the last valid policy stays in effect", "generation", o.GetGeneration())
			if c.Get() == nil {
				c.setDefault()
			}
		}
	}
	c.writeStatus(ctx, o, p, err)
}

// setDefault puts the default policy into effect. It reports whether that succeeded.
func (c *Cluster) setDefault() bool {
	p, err := compileDefault(c.compile)
	if err != nil {
		c.log.Error(err, "Failed to compile the default policy")
		return false
	}
	c.set(p)
	return true
}

func (c *Cluster) compileObject(o *unstructured.Unstructured) (*policy.Policy, error) {
	data, err := json.Marshal(map[string]any{
		"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "metadata": map[string]any{"name": o.GetName()}, "spec": o.Object["spec"],
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the AdmissionPolicy: %w", err)
	}
	parsed, err := policy.ParseObject(data)
	if err != nil {
		return nil, err
	}
	return c.compile(parsed)
}

// writeStatus writes the result of loading the policy to its status. All replicas compute the same status, so that only the first one writes it.
func (c *Cluster) writeStatus(ctx context.Context, o *unstructured.Unstructured, p *policy.Policy, loadErr error) {
	var have v1alpha1.AdmissionPolicyStatus
	if status, ok := o.Object["status"].(map[string]any); ok {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(status, &have); err != nil {
			c.log.V(1).Info("Failed to decode the status of the AdmissionPolicy; replacing it", "error", err.Error())
		}
	}
	want := *have.DeepCopy()
	want.ObservedGeneration = o.GetGeneration()
	condition := metav1.Condition{Type: v1alpha1.ConditionAccepted, ObservedGeneration: o.GetGeneration()}
	if loadErr == nil {
		condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, "InEffect", "This policy is in effect"
		if warnings := p.Warnings(); len(warnings) > 0 {
			condition.Message += "; " + strings.Join(warnings, "; ")
		}
		want.ActiveRules, want.InactiveRules = p.Rules()
	} else {
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, "Invalid", "The last valid policy stays in effect: "+loadErr.Error()
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
		c.log.Error(err, "Failed to write the status of the AdmissionPolicy")
		return
	}
	update := o.DeepCopy()
	update.Object["status"] = status
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err = c.client.Resource(resource).UpdateStatus(ctx, update, metav1.UpdateOptions{FieldManager: "flux-admission"})
	// A conflict means that a newer object will arrive, or that another replica wrote the status first.
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		c.log.Error(err, "Failed to write the status of the AdmissionPolicy")
	}
}
