package serve

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

const (
	// checkInterval is how often the registration is compared with the policy, scanInterval how often the stored objects
	// are.
	checkInterval = 5 * time.Second
	scanInterval  = 5 * time.Minute
	// maxNamed limits the objects that a condition or a line of the log names.
	maxNamed = 10
)

// mutationWatch observes whether what the policy mutates is sent to the mutating webhook, and which stored objects lack
// what the policy would have set: the webhook was away, failed, or was not registered when they were created. It is a
// manager.Runnable.
type mutationWatch struct {
	client kubernetes.Interface
	// config is the name of the MutatingWebhookConfiguration.
	config string
	// policy returns the policy in force; nil before the first one is loaded.
	policy func() *policy.Policy
	lookup validators.Lookup
	// synced reports whether all objects of a kind are in memory.
	synced func(schema.GroupKind) bool
	// withheld are the namespaces from which no object is sent to the webhooks.
	withheld []string
	log      logr.Logger

	mu sync.Mutex
	// known is set once it is known whether there is a configuration.
	known      bool
	registered *admissionv1.MutatingWebhookConfiguration
	// scanned is the policy with which missed was found.
	scanned *policy.Policy
	missed  []string
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: any replica may become the one that writes the status.
func (w *mutationWatch) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable.
func (w *mutationWatch) Start(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(w.client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, w.config).String()
		}))
	configurations := factory.Admissionregistration().V1().MutatingWebhookConfigurations()
	informer := configurations.Informer()
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil // the context has ended
	}
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	var last string
	var scanned time.Time
	for {
		registered, err := configurations.Lister().Get(w.config)
		if err != nil {
			registered = nil // an informer has no other error than that it does not exist
		}
		w.mu.Lock()
		w.known, w.registered = true, registered
		w.mu.Unlock()
		if p := w.policy(); p != nil {
			if p != w.scanned || time.Since(scanned) >= scanInterval {
				if w.scan(ctx, p) {
					scanned = time.Now()
				}
			}
			c := w.Condition(p)
			if text := c.Reason + c.Message; text != last {
				if last = text; c.Status == metav1.ConditionFalse {
					w.log.Info("Mutations of the AdmissionPolicy are not applied", "reason", c.Reason, "message", c.Message)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Condition returns the condition MutationsApplied of a policy; empty if there is nothing to report.
func (w *mutationWatch) Condition(p *policy.Policy) metav1.Condition {
	w.mu.Lock()
	defer w.mu.Unlock()
	selections := p.Mutations()
	set := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.ConditionMutationsApplied, Status: status, Reason: reason, Message: message}
	}
	switch {
	case !w.known:
		return metav1.Condition{}
	case len(selections) == 0 && w.registered == nil:
		return metav1.Condition{}
	case len(selections) == 0:
		return set(metav1.ConditionTrue, "NotNeeded", fmt.Sprintf("The policy mutates nothing, but the MutatingWebhookConfiguration %s is "+
			"registered: remove manifests/inject-target-namespace from what is applied", w.config))
	}
	if missing := webhookconfig.Unregistered(w.registered, selections); len(missing) > 0 {
		return set(metav1.ConditionFalse, "NotRegistered", strings.Join(missing, "; ")+
			": apply manifests/inject-target-namespace with these kinds and namespaces, or change spec.mutations")
	}
	if w.scanned != p {
		return set(metav1.ConditionUnknown, "Progressing", "The stored objects have not been compared with spec.mutations yet")
	}
	if n := len(w.missed); n > 0 {
		return set(metav1.ConditionFalse, "Missed", fmt.Sprintf("%d objects were created without what the policy sets: %s; set it in Git, "+
			"or create them anew", n, w.named()))
	}
	return set(metav1.ConditionTrue, "Applied", "All objects have what the policy sets")
}

// Missed returns the number of stored objects that lack what the policy would have set.
func (w *mutationWatch) Missed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.missed)
}

func (w *mutationWatch) named() string {
	text := strings.Join(w.missed[:min(len(w.missed), maxNamed)], ", ")
	if more := len(w.missed) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// scan finds the stored objects that a policy would change if they were created now. It reports whether all kinds that
// the policy mutates could be read.
func (w *mutationWatch) scan(ctx context.Context, p *policy.Policy) bool {
	var missed []string
	seen := map[schema.GroupKind]bool{}
	memo := lookup.NewMemo(w.lookup) // many objects have the same namespace
	for _, s := range p.Mutations() {
		if seen[s.Kind] {
			continue
		}
		seen[s.Kind] = true
		if !w.synced(s.Kind) {
			return false
		}
		objects, presence, err := w.lookup.List(ctx, s.Kind, "")
		if presence == validators.Unknown {
			w.log.V(1).Info("Failed to list the objects that the policy mutates", "kind", s.Kind.Kind, "error", err.Error())
			return false
		}
		for _, o := range objects {
			if o.GetDeletionTimestamp() != nil || slices.Contains(w.withheld, o.GetNamespace()) {
				continue
			}
			if lacking := lacks(ctx, p, memo, o); lacking != "" {
				missed = append(missed, lacking)
			}
		}
	}
	slices.Sort(missed)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scanned, w.missed = p, missed
	return true
}

// lacks describes what the policy would set in the object if it were created now; empty for nothing.
func lacks(ctx context.Context, p *policy.Policy, l validators.Lookup, o *unstructured.Unstructured) string {
	result := p.Mutate(ctx, validators.Request{Stage: validators.StageAdmission, Operation: validators.Create, Object: o}, l)
	var edits []string
	for _, e := range result.Edits {
		edits = append(edits, fmt.Sprintf("%s: %v", e.Path, e.Value))
	}
	if len(edits) == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s/%s (%s)", o.GetKind(), o.GetNamespace(), o.GetName(), strings.Join(edits, ", "))
}
