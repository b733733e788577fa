package privileges_test

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/flux-admission/flux-admission/test/privileges"
)

const roles = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: server}
rules:
  - {apiGroups: [example.com], resources: [apples, pears], verbs: [list]}
  - {apiGroups: [""], resources: [secrets], resourceNames: [ca], verbs: [update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: server}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: server}
subjects: [{kind: ServiceAccount, name: server, namespace: system}]
`

const optional = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: server, namespace: system}
rules: [{apiGroups: [example.com], resources: [apples/status], verbs: [update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: server, namespace: system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: server}
subjects: [{kind: ServiceAccount, name: server, namespace: system}]
`

func event(user, request, decision string, ref auditv1.ObjectReference) auditv1.Event {
	return auditv1.Event{
		Verb: request, User: authenticationv1.UserInfo{Username: user}, ObjectRef: &ref,
		Annotations: map[string]string{"authorization.k8s.io/decision": decision},
	}
}

func TestCompare(t *testing.T) {
	manifests := fstest.MapFS{
		"base/rbac.yaml":                {Data: []byte(roles)},
		"components/more/rbac.yaml":     {Data: []byte(optional)},
		"components/more/other.yaml":    {Data: []byte("a: [1]\n---\nkind: ConfigMap\n")},
		"components/more/template.yaml": {Data: []byte("{{ not YAML\n")},
	}
	grants, err := privileges.Grants(manifests, "server", "system")
	if err != nil {
		t.Fatal(err)
	}
	const me = "system:serviceaccount:system:server"
	events := []auditv1.Event{
		event(me, "list", "allow", auditv1.ObjectReference{APIGroup: "example.com", Resource: "apples"}),
		event("somebody", "list", "allow", auditv1.ObjectReference{APIGroup: "example.com", Resource: "pears"}),
		event(me, "list", "forbid", auditv1.ObjectReference{APIGroup: "example.com", Resource: "plums", Namespace: "a", Name: "b"}),
		event(me, "update", "allow", auditv1.ObjectReference{Resource: "secrets", Namespace: "system", Name: "other"}),
		// The component that grants it is not installed everywhere.
		event(me, "update", "forbid", auditv1.ObjectReference{APIGroup: "example.com", Resource: "apples", Subresource: "status", Namespace: "system", Name: "b"}),
		event(me, "update", "forbid", auditv1.ObjectReference{APIGroup: "example.com", Resource: "apples", Subresource: "status", Namespace: "a", Name: "b"}),
		{Verb: "get", RequestURI: "/version?timeout=1s", User: authenticationv1.UserInfo{Username: me}, Annotations: map[string]string{"authorization.k8s.io/decision": "allow"}},
		{Verb: "get", RequestURI: "/version?timeout=1s", User: authenticationv1.UserInfo{Username: me}, Annotations: map[string]string{"authorization.k8s.io/decision": "forbid"}},
		{Verb: "get", RequestURI: "/logs", User: authenticationv1.UserInfo{Username: me}, Annotations: map[string]string{"authorization.k8s.io/decision": "forbid"}},
	}
	dir := t.TempDir()
	for range 2 { // two control planes
		if err := privileges.Write(dir, privileges.Calls(events, me, "system")); err != nil {
			t.Fatal(err)
		}
	}
	calls, files, err := privileges.Read(dir)
	if err != nil || files != 2 {
		t.Fatalf("%d files: %v", files, err)
	}
	forbidden, unused := privileges.Compare(calls, grants)
	var got []string
	for _, c := range forbidden {
		got = append(got, "forbidden "+c.String())
	}
	for _, g := range unused {
		got = append(got, "unused "+g.String())
	}
	want := []string{
		"forbidden get /logs",
		"forbidden list plums.example.com b in a",
		"forbidden update apples/status.example.com b in a",
		"unused list pears.example.com (server)",
		"unused update secrets ca (server)",
		"unused update apples/status.example.com in system (server)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGrants_SomebodyElse(t *testing.T) {
	if _, err := privileges.Grants(fstest.MapFS{"rbac.yaml": {Data: []byte(roles)}}, "other", "system"); err == nil {
		t.Error("no error for a binding of another service account")
	}
}
