package source

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
)

const (
	// ReplicaLabel selects the Leases of the replicas.
	ReplicaLabel = "flux-admission.dev/replica"
	// CAAnnotation of the Lease of a replica is the fingerprint of the CA that signed its serving certificate. Without it the
	// certificate is not a self-managed one, or an older version serves it.
	CAAnnotation = "flux-admission.dev/serving-ca"
	// annotations of the Lease of a replica.
	annotationVersion    = "flux-admission.dev/version"
	annotationGeneration = "flux-admission.dev/policy-generation"
	annotationUID        = "flux-admission.dev/policy-uid"
	annotationMode       = "flux-admission.dev/policy-mode"
	annotationProblems   = "flux-admission.dev/policy-problems"

	// heartbeat is how often a replica renews its Lease, lifetime how long the replica counts after that.
	heartbeat = 10 * time.Second
	lifetime  = 40 * time.Second
	// unsettledInterval is how often the leader looks at the replicas until all have the policy in force.
	unsettledInterval = time.Second
	// auditInterval is how long at least is between two writes of the summary of the audit.
	auditInterval = time.Minute
	// maxMessage is the API server's limit on the message of a condition, in bytes.
	maxMessage = 32 << 10
)

// Reporter reports what is in force. Every replica publishes it in a Lease of its own, and only the leader writes the status of the AdmissionPolicy and
// keeps the policy in force for the next start: two versions of the program that come to different results never overwrite each other.
type Reporter struct {
	Cluster *Cluster
	// Election elects the leader; it runs by itself. The Leases of the replicas are beside its own.
	Election *Election
	// Version is that of the program.
	Version string
	// CA returns the fingerprint of the CA that signed the serving certificate; nil if it is not self-managed.
	CA func() string
	// Mutations returns the condition MutationsApplied of a policy; its type is empty for none. It may be nil.
	Mutations func(*policy.Policy) metav1.Condition
	// Audit returns the summary of the background audit; nil before it is complete. It is nil itself if there is no audit.
	Audit func() *v1alpha1.AuditStatus
	Log   logr.Logger

	// stored is the kept policy that this leader last stored or found, recorded the rules that it last recorded.
	stored, recorded string
	// audited is when this leader last wrote another summary of the audit.
	audited time.Time
	// published describes what the replica's Lease has.
	published string
	// seen are the Leases of the replicas as this process last saw them change, so that clocks are never compared.
	seen map[string]seenLease
}

type seenLease struct {
	renewed metav1.MicroTime
	at      time.Time
}

// alive reports whether a replica has renewed its Lease within its lifetime.
func (r *Reporter) alive(l *coordinationv1.Lease) bool {
	if l.Spec.RenewTime == nil {
		return false
	}
	last, ok := r.seen[l.Name]
	if !ok || !last.renewed.Equal(l.Spec.RenewTime) {
		last = seenLease{*l.Spec.RenewTime, time.Now()}
	}
	if r.seen == nil {
		r.seen = map[string]seenLease{}
	}
	r.seen[l.Name] = last
	return time.Since(last.at) <= lifetime
}

// NeedLeaderElection returns false: losing the lead must not end the process, which serves webhooks.
func (r *Reporter) NeedLeaderElection() bool { return false }

// Start reports until ctx is done.
func (r *Reporter) Start(ctx context.Context) error {
	defer r.leave(ctx)
	limit := rate.NewLimiter(rate.Every(time.Second), 3)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	check := time.NewTicker(unsettledInterval)
	defer check.Stop()
	settled, led := false, false
	for {
		if led != r.Election.Leading() {
			led, settled, r.stored, r.recorded = !led, false, "", ""
		}
		if r.Election.Leading() && !settled && limit.Allow() {
			settled = r.report(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.Cluster.changed:
			r.publish(ctx, false)
			settled = false
		case <-beat.C:
			r.publish(ctx, true)
			settled = false
		case <-check.C:
			r.publish(ctx, false) // another CA
		}
	}
}

// publish writes what this replica has in force, and the CA of its certificate, into its Lease. Without a change it only renews it, if renew is set.
func (r *Reporter) publish(ctx context.Context, renew bool) {
	f, _ := r.Cluster.InForce()
	if f.Policy == nil {
		return
	}
	annotations := map[string]string{
		annotationVersion: r.Version, annotationGeneration: strconv.FormatInt(f.Generation, 10), annotationUID: f.UID,
		annotationMode: string(modeOf(f)), annotationProblems: strconv.Itoa(len(f.Problems)),
	}
	if r.CA != nil {
		annotations[CAAnnotation] = r.CA()
	}
	if text := fmt.Sprint(annotations); text != r.published {
		r.published = text
	} else if !renew {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	seconds, now := int32(lifetime/time.Second), metav1.NowMicro()
	want := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.Election.Identity, Namespace: r.Election.Namespace, Labels: map[string]string{ReplicaLabel: "true"}, Annotations: annotations,
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &r.Election.Identity, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
	leases := r.Election.Leases.Leases(r.Election.Namespace)
	// The API server updates a Lease only with its resource version, which changes also when somebody annotates it.
	stored, err := leases.Get(ctx, want.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = leases.Create(ctx, want, metav1.CreateOptions{})
	case err == nil:
		want.ResourceVersion = stored.ResourceVersion
		_, err = leases.Update(ctx, want, metav1.UpdateOptions{})
	}
	if err != nil && ctx.Err() == nil {
		r.published = ""
		r.Log.Error(err, "Failed to publish the policy in force", "lease", r.Election.Namespace+"/"+r.Election.Identity)
	}
}

// leave deletes the replica's Lease.
func (r *Reporter) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout/2)
	defer cancel()
	err := r.Election.Leases.Leases(r.Election.Namespace).Delete(ctx, r.Election.Identity, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		r.Log.V(1).Info("Failed to delete the Lease of this replica", "error", err.Error())
	}
}

// report keeps the policy in force and writes the status of the AdmissionPolicy, if they changed. It reports whether there is nothing left to do until
// something changes.
func (r *Reporter) report(ctx context.Context) bool {
	f, o := r.Cluster.InForce()
	if f.Policy == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if f.Origin == OriginObject && (o == nil || f.UID != string(o.GetUID()) || f.Generation != o.GetGeneration()) {
		return false
	}
	recorded, err := r.Cluster.record(ctx, f, r.recorded)
	if r.recorded = recorded; err != nil {
		r.Log.Error(err, "Failed to record the rules in force")
		return false
	}
	// Of a deleted policy, the leader keeps what it had no time for. Another leader does not: an operator may have deleted what was kept, to return to
	// the default policy at the next start.
	if f.Origin == OriginDefault || f.Origin == OriginLast && r.stored == "" {
		return true
	}
	stored, err := r.Cluster.keep(ctx, f.Spec, r.stored)
	if r.stored = stored; err != nil {
		r.Log.Error(err, "Failed to keep the policy in force for the next start")
	}
	if f.Origin != OriginObject {
		return err == nil
	}
	replicas, err := r.replicas(ctx, f.UID)
	if err != nil {
		r.Log.Error(err, "Failed to read the Leases of the replicas")
		return false
	}
	return r.writeStatus(ctx, o, f, replicas)
}

// replicas returns what each replica has in force, and deletes the Leases of those that no longer exist.
func (r *Reporter) replicas(ctx context.Context, uid string) ([]v1alpha1.ReplicaStatus, error) {
	list, err := r.Election.Leases.Leases(r.Election.Namespace).List(ctx, metav1.ListOptions{LabelSelector: ReplicaLabel})
	if err != nil {
		return nil, fmt.Errorf("listing Leases: %w", err)
	}
	var out []v1alpha1.ReplicaStatus
	for i := range list.Items {
		l := &list.Items[i]
		if !r.alive(l) {
			delete(r.seen, l.Name)
			err := r.Election.Leases.Leases(r.Election.Namespace).Delete(ctx, l.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &l.ResourceVersion}})
			if err != nil && !apierrors.IsNotFound(err) {
				r.Log.V(1).Info("Failed to delete an expired Lease", "lease", l.Name, "error", err.Error())
			}
			continue
		}
		s := v1alpha1.ReplicaStatus{Name: l.Name, Version: l.Annotations[annotationVersion], Mode: v1alpha1.Mode(l.Annotations[annotationMode])}
		if l.Annotations[annotationUID] == uid {
			s.ObservedGeneration, _ = strconv.ParseInt(l.Annotations[annotationGeneration], 10, 64)
		}
		if n, err := strconv.ParseInt(l.Annotations[annotationProblems], 10, 32); err == nil {
			s.Problems = int32(n)
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b v1alpha1.ReplicaStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// writeStatus writes the status if it changed, and reports whether it is settled: written, and the same until something changes.
func (r *Reporter) writeStatus(ctx context.Context, o *unstructured.Unstructured, f InForce, replicas []v1alpha1.ReplicaStatus) bool {
	var have v1alpha1.AdmissionPolicyStatus
	if status, ok := o.Object["status"].(map[string]any); ok {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(status, &have); err != nil {
			r.Log.V(1).Info("Failed to decode the status of the AdmissionPolicy; replacing it", "error", err.Error())
		}
	}
	want, complete := statusOf(have, f, replicas)
	if r.Mutations != nil {
		if c := r.Mutations(f.Policy); c.Type != "" {
			c.ObservedGeneration = f.Generation
			meta.SetStatusCondition(&want.Conditions, c)
		} else {
			meta.RemoveStatusCondition(&want.Conditions, v1alpha1.ConditionMutationsApplied)
		}
	}
	want.Audit = r.audit(have.Audit)
	if equality.Semantic.DeepEqual(have, want) {
		return complete
	}
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&want)
	if err != nil {
		r.Log.Error(err, "Failed to write the status of the AdmissionPolicy")
		return false
	}
	update := o.DeepCopy()
	update.Object["status"] = status
	_, err = r.Cluster.client.Resource(resource).UpdateStatus(ctx, update, metav1.UpdateOptions{FieldManager: "flux-admission"})
	if err == nil && !equality.Semantic.DeepEqual(have.Audit, want.Audit) {
		r.audited = time.Now()
	}
	// A conflict means that a newer object is about to arrive.
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		r.Log.Error(err, "Failed to write the status of the AdmissionPolicy")
	}
	return false // until the object arrives with this status
}

// audit returns the summary of the audit to write: the stored one while nothing but its time has changed, or another one was written less
// than a minute ago.
func (r *Reporter) audit(have *v1alpha1.AuditStatus) *v1alpha1.AuditStatus {
	if r.Audit == nil {
		return nil
	}
	now := r.Audit()
	if now == nil || have != nil && time.Since(r.audited) < auditInterval {
		return have
	}
	if have != nil {
		same := now.DeepCopy()
		same.LastCompleteTime = have.LastCompleteTime
		if equality.Semantic.DeepEqual(same, have) {
			return have
		}
	}
	return now
}

// statusOf returns the status of a policy, and whether all replicas have it in force.
func statusOf(have v1alpha1.AdmissionPolicyStatus, f InForce, replicas []v1alpha1.ReplicaStatus) (v1alpha1.AdmissionPolicyStatus, bool) {
	want := *have.DeepCopy()
	want.ObservedGeneration = f.Generation
	want.Mode = modeOf(f)
	want.ActiveRules, want.InactiveRules = f.Policy.Rules()
	want.Replicas = replicas
	set := func(kind string, status metav1.ConditionStatus, reason, message string) {
		if len(message) > maxMessage {
			message = strings.ToValidUTF8(message[:maxMessage], "")
		}
		meta.SetStatusCondition(&want.Conditions, metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: f.Generation,
		})
	}
	current, unusable := 0, []string{}
	for _, one := range replicas {
		if one.ObservedGeneration == f.Generation {
			current++
			if one.Problems > 0 {
				unusable = append(unusable, one.Name)
			}
		}
	}
	complete := len(replicas) > 0 && current == len(replicas)
	count := fmt.Sprintf("in force in %d of %d replicas", current, len(replicas))
	remarks := strings.Join(slices.Concat(f.Notes, f.Policy.Warnings()), "; ")
	if remarks != "" {
		remarks = "; " + remarks
	}
	invalid := strings.Join(f.Problems, "; ")
	if invalid == "" && len(unusable) > 0 {
		invalid = "another version cannot use all of it: " + strings.Join(unusable, ", ")
	}
	if invalid == "" {
		set(v1alpha1.ConditionAccepted, metav1.ConditionTrue, "InEffect", "All of this policy can be used"+remarks)
		meta.RemoveStatusCondition(&want.Conditions, v1alpha1.ConditionStalled)
		if complete {
			set(v1alpha1.ConditionReady, metav1.ConditionTrue, "InEffect", "This policy is "+count+remarks)
		} else {
			set(v1alpha1.ConditionReady, metav1.ConditionFalse, "Progressing", "This policy is "+count)
		}
		return want, complete
	}
	set(v1alpha1.ConditionAccepted, metav1.ConditionFalse, "PartlyInvalid", "Parts of this policy cannot be used: "+invalid+remarks)
	set(v1alpha1.ConditionReady, metav1.ConditionFalse, "PartlyInvalid", "Parts of this policy cannot be used: "+invalid)
	set(v1alpha1.ConditionStalled, metav1.ConditionTrue, "PartlyInvalid", "The policy needs a change")
	return want, complete
}

func modeOf(f InForce) v1alpha1.Mode {
	if f.Policy.AuditOnly() {
		return v1alpha1.ModeAuditOnly
	}
	return v1alpha1.ModeEnforce
}
