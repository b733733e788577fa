// Package soak_test keeps two replicas of the real binary under load on a real API server, while they are attacked and what they
// depend on fails: as the manifests run them, with the hard limit of memory of the Deployment. A ledger has the expected verdict
// of every honest write and what came.
//
// Without SOAK_TIME it takes half a minute and only shows that it works; `make soak` is the real run.
package soak_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

// shortTime is the time of the load without SOAK_TIME.
const shortTime = 20 * time.Second

var (
	shared *env.Env
	// duration is how long the load lasts, and short is set without SOAK_TIME.
	duration = shortTime
	short    = true
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard()) // of requests that end with their deadline
	if s := os.Getenv("SOAK_TIME"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < time.Minute {
			fmt.Fprintf(os.Stderr, "SOAK_TIME=%s must be a duration of a minute or more, such as 10m\n", s)
			os.Exit(2)
		}
		duration, short = d, false
	}
	os.Exit(env.Main(m, env.Options{
		ControlPlane: controlplane.Options{CRDSets: controlplane.DefaultCRDs(), Audit: true},
		Replicas:     2,
		Shipped:      true,
		Proxy:        true,
		Charts:       []string{env.AirflowChart},
	}, func(_ context.Context, e *env.Env) error {
		shared = e
		return nil
	}))
}
