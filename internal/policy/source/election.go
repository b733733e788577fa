package source

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// leaderName is the name of the Lease of the leader.
const leaderName = "flux-admission"

// Election elects one of the replicas. The leader audits, and writes the status of the AdmissionPolicy where the policy comes from the
// cluster. It is a manager.Runnable.
type Election struct {
	Leases coordinationclient.LeasesGetter
	// Namespace is where the Lease is.
	Namespace string
	// Identity is unique to the replica, and a valid name of an object.
	Identity string
	Log      logr.Logger

	leading atomic.Bool
}

// Leading reports whether this replica is the leader.
func (e *Election) Leading() bool { return e.leading.Load() }

// NeedLeaderElection returns false: losing the lead must not end the process, which serves webhooks.
func (e *Election) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable: it takes part in the election until ctx ends.
func (e *Election) Start(ctx context.Context) error {
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Name: leaderName, Namespace: e.Namespace}, Client: e.Leases,
			LockConfig: resourcelock.ResourceLockConfig{Identity: e.Identity},
		},
		LeaseDuration: 30 * time.Second, RenewDeadline: 20 * time.Second, RetryPeriod: 4 * time.Second, ReleaseOnCancel: true, Name: leaderName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				e.leading.Store(true)
				e.Log.Info("Became the leader, which audits and writes the status of the AdmissionPolicy")
			},
			OnStoppedLeading: func() { e.leading.Store(false) },
		},
	})
	if err != nil {
		return fmt.Errorf("preparing the leader election: %w", err)
	}
	for ctx.Err() == nil {
		elector.Run(ctx) // returns when the lead is lost
	}
	return nil
}
