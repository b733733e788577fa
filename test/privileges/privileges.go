// Package privileges compares the calls of the webhook server, as the audit logs of the tests' API servers have them,
// with the permissions that the manifests grant.
package privileges

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// DirectoryVariable is the environment variable with the directory to which the tests write the calls; without it they
// do not record any.
const DirectoryVariable = "FLUX_ADMISSION_TEST_PRIVILEGES"

// Elsewhere is the namespace of calls in any namespace but the webhook server's own.
const Elsewhere = "*"

// Call is a kind of call that a user made.
type Call struct {
	Verb     string `json:"request"`
	Group    string `json:"group,omitempty"`
	Resource string `json:"resource,omitempty"` // with the subresource, as in roles
	// Namespace is empty for all namespaces and for what is in none.
	Namespace string `json:"namespace,omitempty"`
	// Name is empty for allowed calls Elsewhere.
	Name string `json:"name,omitempty"`
	// Path is that of a call for no resource.
	Path      string `json:"path,omitempty"`
	Forbidden bool   `json:"forbidden,omitempty"`
}

func (c Call) String() string {
	if c.Path != "" {
		return c.Verb + " " + c.Path
	}
	out := c.Verb + " " + c.Resource
	if c.Group != "" {
		out += "." + c.Group
	}
	if c.Name != "" {
		out += " " + c.Name
	}
	if c.Namespace != "" {
		out += " in " + c.Namespace
	}
	return out
}

// Calls returns the calls of a user among the events of an audit log, each once, sorted. namespace is the user's own.
func Calls(events []auditv1.Event, user, namespace string) []Call {
	seen := map[Call]bool{}
	for _, e := range events {
		decision, decided := e.Annotations["authorization.k8s.io/decision"]
		if e.User.Username != user || !decided {
			continue
		}
		c := Call{Verb: e.Verb, Forbidden: decision != "allow"}
		if e.ObjectRef == nil {
			c.Path, _, _ = strings.Cut(e.RequestURI, "?")
		} else {
			c.Group, c.Resource, c.Namespace, c.Name = e.ObjectRef.APIGroup, e.ObjectRef.Resource, e.ObjectRef.Namespace, e.ObjectRef.Name
			if e.ObjectRef.Subresource != "" {
				c.Resource += "/" + e.ObjectRef.Subresource
			}
			if c.Namespace != "" && c.Namespace != namespace && !c.Forbidden {
				c.Namespace, c.Name = Elsewhere, ""
			}
		}
		seen[c] = true
	}
	out := make([]Call, 0, len(seen))
	for c := range seen {
		out = append(out, c)
	}
	slices.SortFunc(out, compareCalls)
	return out
}

func compareCalls(a, b Call) int { return cmp.Compare(a.String(), b.String()) }

// Write adds a file with the calls to a directory, which it creates.
func Write(dir string, calls []Call) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("writing calls: %w", err)
	}
	data, err := json.MarshalIndent(calls, "", " ")
	if err != nil {
		return fmt.Errorf("writing calls: %w", err)
	}
	file, err := os.CreateTemp(dir, "calls-*.json")
	if err != nil {
		return fmt.Errorf("writing calls: %w", err)
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// Read returns the calls in the files of a directory, and how many files there are.
func Read(dir string) (calls []Call, files int, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "calls-*.json"))
	if err != nil {
		return nil, 0, fmt.Errorf("reading calls: %w", err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, 0, fmt.Errorf("reading calls: %w", err)
		}
		var more []Call
		if err := json.Unmarshal(data, &more); err != nil {
			return nil, 0, fmt.Errorf("reading calls: %s: %w", name, err)
		}
		calls = append(calls, more...)
	}
	return calls, len(names), nil
}

// Grant is one permission: for one kind of requests of one resource, or of one object of it.
type Grant struct {
	// Role is the role that has it, and Namespace where; empty: everywhere.
	Role, Namespace       string
	Verb, Group, Resource string
	// Name limits it to an object; empty: all.
	Name string
}

func (g Grant) String() string {
	c := Call{Verb: g.Verb, Group: g.Group, Resource: g.Resource, Namespace: g.Namespace, Name: g.Name}
	return fmt.Sprintf("%s (%s)", c, g.Role)
}

// allows reports whether the grant is for a call.
func (g Grant) allows(c Call) bool {
	return c.Path == "" && g.Verb == c.Verb && g.Group == c.Group && g.Resource == c.Resource &&
		(g.Namespace == "" || g.Namespace == c.Namespace) && (g.Name == "" || g.Name == c.Name)
}

// Grants returns the permissions that the YAML files in manifests bind to a service account, those of optional
// components included.
func Grants(manifests fs.FS, account, namespace string) ([]Grant, error) {
	roles := map[string][]rbacv1.PolicyRule{} // by kind/namespace/name
	type binding struct{ role, namespace string }
	var bindings []binding
	err := eachDocument(manifests, func(kind string, document []byte) error {
		switch kind {
		case "ClusterRole", "Role":
			// The two kinds of roles differ in nothing else that counts here, nor do the two kinds of bindings.
			var role rbacv1.Role
			if err := yaml.UnmarshalStrict(document, &role); err != nil {
				return err
			}
			roles[kind+"/"+role.Namespace+"/"+role.Name] = role.Rules
		case "ClusterRoleBinding", "RoleBinding":
			var b rbacv1.RoleBinding
			if err := yaml.UnmarshalStrict(document, &b); err != nil {
				return err
			}
			if !slices.ContainsFunc(b.Subjects, func(s rbacv1.Subject) bool {
				return s.Kind == "ServiceAccount" && s.Name == account && s.Namespace == namespace
			}) {
				return fmt.Errorf("%s %s binds a role to somebody else than %s", kind, b.Name, account)
			}
			of := ""
			if b.RoleRef.Kind == "Role" {
				of = b.Namespace
			}
			bindings = append(bindings, binding{role: b.RoleRef.Kind + "/" + of + "/" + b.RoleRef.Name, namespace: b.Namespace})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []Grant
	for _, b := range bindings {
		rules, ok := roles[b.role]
		if !ok {
			return nil, fmt.Errorf("no role %s in the manifests", b.role)
		}
		for _, rule := range rules {
			out = append(out, expand(path.Base(b.role), b.namespace, rule)...)
		}
	}
	return out, nil
}

func expand(role, namespace string, rule rbacv1.PolicyRule) (out []Grant) {
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, v := range rule.Verbs {
				g := Grant{Role: role, Namespace: namespace, Verb: v, Group: group, Resource: resource}
				if len(rule.ResourceNames) == 0 {
					out = append(out, g)
				}
				for _, g.Name = range rule.ResourceNames {
					out = append(out, g)
				}
			}
		}
	}
	return out
}

// eachDocument calls do with every YAML document in a file system and its kind.
func eachDocument(manifests fs.FS, do func(kind string, document []byte) error) error {
	return fs.WalkDir(manifests, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".yaml" {
			return err
		}
		data, err := fs.ReadFile(manifests, name)
		if err != nil {
			return err
		}
		documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			var meta struct {
				Kind string `json:"kind"`
			}
			if err := yaml.Unmarshal(document, &meta); err != nil {
				continue // such as a test of Prometheus' rules
			}
			if err := do(meta.Kind, document); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	})
}

// Compare returns the calls that the manifests grant to nobody, and the grants that no call used.
func Compare(calls []Call, grants []Grant) (forbidden []Call, unused []Grant) {
	for _, c := range calls {
		// Kubernetes' own roles grant paths; an API server that starts has not read them yet.
		if c.Path != "" && slices.Contains(calls, Call{Verb: c.Verb, Path: c.Path}) {
			continue
		}
		// A component that a test did not install grants some calls. The webhook server tries them to find out.
		if c.Forbidden && !slices.ContainsFunc(grants, func(g Grant) bool { return g.allows(c) }) {
			forbidden = append(forbidden, c)
		}
	}
	slices.SortFunc(forbidden, compareCalls)
	forbidden = slices.Compact(forbidden)
	for _, g := range grants {
		if !slices.ContainsFunc(calls, func(c Call) bool { return !c.Forbidden && g.allows(c) }) {
			unused = append(unused, g)
		}
	}
	return forbidden, unused
}
