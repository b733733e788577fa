// Package source keeps the policy in force up to date: from a file or from the cluster. A new policy that cannot be used never takes the
// place of one that could.
package source

import (
	"fmt"
	"sync/atomic"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/policy"
)

// Compile turns a policy into one that is bound to the rules; policy.Compile with its other arguments filled in.
type Compile func(*v1alpha1.AdmissionPolicy) (*policy.Policy, error)

// Reloaded is told how each attempt to load a policy ended.
type Reloaded func(accepted bool)

// Current is the policy in force. It is safe for concurrent use.
type Current struct{ p atomic.Pointer[policy.Policy] }

// Get returns the policy in force; nil before the first one.
func (c *Current) Get() *policy.Policy { return c.p.Load() }

func (c *Current) set(p *policy.Policy) { c.p.Store(p) }

// shipped compiles the policy that ships.
func shipped(compile Compile) (*policy.Policy, error) {
	p, err := policy.Shipped()
	if err != nil {
		return nil, fmt.Errorf("reading the policy that ships: %w", err)
	}
	return compile(p)
}
