package check

import (
	"fmt"
	"os"
	"slices"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/policy"
	"github.com/flux-admission/flux-admission/mutators"
	allmutators "github.com/flux-admission/flux-admission/mutators/all"
	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// Policy returns the policy of a file; for the file "", the default policy with the default actions of a stage.
func Policy(file string, stage validators.Stage) (*policy.Policy, error) {
	if file != "" {
		parsed, err := parsePolicy(file, stage)
		if err != nil {
			return nil, err
		}
		policy.SetActions(parsed, stage, allRules())
		compiled, err := compile(parsed, nil)
		return compiled, policy.Locate(err, positionIn(file))
	}
	parsed, err := policy.DefaultAt(stage, allRules())
	if err != nil {
		return nil, err
	}
	return compile(parsed, nil)
}

// clusterPolicy is the policy that a cluster is checked with.
type clusterPolicy struct {
	*policy.Policy
	// requested are the names of the rules that the user named in a policy or in flags, as rules to evaluate.
	requested map[string]bool
	// origin is where the policy comes from, for people.
	origin string
	// position returns the position of a field of the policy.
	position func(validators.Path) validators.Position
}

// defaultPolicy is the origin of the default policy.
const defaultPolicy = "the default policy"

// choosePolicies returns the policy of each cluster by its name: the file's, the one that the cluster applies, or the default policy with the
// default actions of a check. The input's own actions are set in it. What is built without an entry point is no cluster of its own, so it shares
// a policy.
func choosePolicies(in Input, actions map[string]v1alpha1.Action, built *kustomization.Result) (map[string]*clusterPolicy, error) {
	byOrigin := map[string]*clusterPolicy{}
	get := func(
		origin string, parse func() (*v1alpha1.AdmissionPolicy, error), position func(validators.Path) validators.Position,
	) (*clusterPolicy, error) {
		if p := byOrigin[origin]; p != nil {
			return p, nil
		}
		p, err := newClusterPolicy(in, actions, origin, parse, position)
		byOrigin[origin] = p
		return p, err
	}
	var shared *kustomization.Object
	for _, c := range built.Clusters {
		if own := policyOf(c); c.Entry == nil && shared == nil {
			shared = own
		}
	}
	out := map[string]*clusterPolicy{}
	for _, c := range built.Clusters {
		own := policyOf(c)
		if c.Entry == nil {
			own = shared
		}
		var err error
		switch {
		case in.Policy != "":
			parse := func() (*v1alpha1.AdmissionPolicy, error) { return parsePolicy(in.Policy, validators.StageOffline) }
			out[c.Name], err = get(in.Policy, parse, positionIn(in.Policy))
		case own != nil:
			position := func(at validators.Path) validators.Position { return own.Locate(at).Position }
			parse := func() (*v1alpha1.AdmissionPolicy, error) {
				p, err := objectPolicy(own, validators.StageOffline)
				return p, policy.Locate(err, position)
			}
			out[c.Name], err = get(position(nil).String(), parse, position)
		default:
			out[c.Name], err = get(defaultPolicy, nil, nil)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func parsePolicy(file string, stage validators.Stage) (*v1alpha1.AdmissionPolicy, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	return policy.ParseAt(file, data, stage, allRules())
}

// positionIn returns the positions of the fields of a policy in its file.
func positionIn(file string) func(validators.Path) validators.Position {
	return func(at validators.Path) validators.Position { return policy.PositionIn(file, at) }
}

func objectPolicy(o *kustomization.Object, stage validators.Stage) (*v1alpha1.AdmissionPolicy, error) {
	data, err := o.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("reading the tree's AdmissionPolicy: %w", err)
	}
	return policy.ParseObjectAt(data, stage, allRules())
}

// newClusterPolicy compiles a policy; a nil parse means the default policy. Position returns those of the fields of another one.
func newClusterPolicy(
	in Input, actions map[string]v1alpha1.Action, origin string, parse func() (*v1alpha1.AdmissionPolicy, error),
	position func(validators.Path) validators.Position,
) (*clusterPolicy, error) {
	out := &clusterPolicy{requested: map[string]bool{}, origin: origin, position: position}
	var parsed *v1alpha1.AdmissionPolicy
	var err error
	if parse == nil {
		parsed, err = policy.DefaultAt(validators.StageOffline, allRules())
	} else if parsed, err = parse(); err == nil {
		for name := range parsed.Spec.Rules {
			out.requested[name] = true
		}
		policy.SetActions(parsed, validators.StageOffline, allRules())
	}
	if err != nil {
		return nil, err
	}
	for _, m := range allRules() {
		if slices.Contains(slices.Concat(in.Only, in.Deny, in.Warn), m.ID) {
			out.requested[m.Name] = true
		}
	}
	if out.Policy, err = compile(parsed, actions); err != nil {
		return nil, policy.Locate(err, position)
	}
	return out, nil
}

func allRules() []*validators.Meta {
	var out []*validators.Meta
	for _, r := range allvalidators.Rules() {
		out = append(out, &r.Meta)
	}
	return out
}

func compile(parsed *v1alpha1.AdmissionPolicy, actions map[string]v1alpha1.Action) (*policy.Policy, error) {
	rules, err := validators.NewSuite(allvalidators.Rules()...)
	if err != nil {
		return nil, fmt.Errorf("building the suite of rules: %w", err)
	}
	mutations, err := mutators.NewSet(allmutators.Mutators()...)
	if err != nil {
		return nil, fmt.Errorf("building the set of mutators: %w", err)
	}
	return policy.CompileWith(parsed, actions, rules, mutations, nil)
}

// policyOf returns the AdmissionPolicy that a cluster applies to itself; nil when it applies none.
func policyOf(c *kustomization.Cluster) *kustomization.Object {
	for _, o := range c.Objects {
		gvk := o.GroupVersionKind()
		if gvk.Group == v1alpha1.GroupVersion.Group && gvk.Kind == v1alpha1.Kind && o.GetName() == v1alpha1.Name &&
			(o.Kustomization == nil || !o.Kustomization.RemoteCluster()) {
			return o
		}
	}
	return nil
}
