// Package source loads the policy from a file or from the cluster, and reloads it when it changes. An invalid policy never replaces a valid one.
package source

import (
	"sync/atomic"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
)

// Compile binds a policy to the rules: policy.Compile with its other arguments filled in.
type Compile func(*v1alpha1.AdmissionPolicy) (*policy.Policy, error)

// Reloaded is called after each attempt to load a policy.
type Reloaded func(accepted bool)

// Current holds the policy in effect. It is safe for concurrent use.
type Current struct{ p atomic.Pointer[policy.Policy] }

// Get returns the policy in effect; nil before the first one is loaded.
func (c *Current) Get() *policy.Policy { return c.p.Load() }

func (c *Current) set(p *policy.Policy) { c.p.Store(p) }
