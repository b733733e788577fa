package manifests_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
)

const releaseNamespace = "flux-admission-system"

// buildHelm builds Helm's own command once, from its module.
var buildHelm = sync.OnceValues(func() (string, error) {
	root, err := env.Root()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(plane.Dir(), "helm")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "helm")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", path, "helm.sh/helm/v4/cmd/helm")
	build.Dir = filepath.Join(root, "internal", "tools", "helm")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	return path, build.Run()
})

// helm runs Helm with the chart in place of CHART, and returns its output.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := buildHelm()
	if err != nil {
		t.Fatal("building helm: ", err)
	}
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range args {
		if a == "CHART" {
			args[i] = filepath.Join(root, "manifests", "chart")
		}
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// templated returns the objects of the chart with these values, by kind and name.
func templated(t *testing.T, namespace, values string) map[string]*unstructured.Unstructured {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := helm(t, "template", "any-name", "CHART", "--namespace", namespace, "--include-crds", "--kube-version", "1.37.0", "--values", file)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return decode(t, out)
}

// normalized returns an object as it is compared: arguments sorted after the command, since components append them in any order.
func normalized(t *testing.T, o *unstructured.Unstructured) map[string]any {
	t.Helper()
	o = o.DeepCopy()
	if o.GetKind() != "Deployment" {
		return o.Object
	}
	for _, field := range []string{"containers", "volumes"} {
		items, _, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", field)
		if err != nil || len(items) == 0 {
			t.Fatalf("no %s: %v", field, err)
		}
		for _, item := range items {
			item, _ := item.(map[string]any)
			if args, _, _ := unstructured.NestedStringSlice(item, "args"); len(args) > 0 {
				slices.Sort(args[1:])
				_ = unstructured.SetNestedStringSlice(item, args, "args")
			}
			if mounts, _, _ := unstructured.NestedSlice(item, "volumeMounts"); len(mounts) > 0 {
				sortByName(mounts)
				_ = unstructured.SetNestedSlice(item, mounts, "volumeMounts")
			}
		}
		sortByName(items)
		_ = unstructured.SetNestedSlice(o.Object, items, "spec", "template", "spec", field)
	}
	return o.Object
}

func sortByName(items []any) {
	name := func(item any) string {
		m, _ := item.(map[string]any)
		s, _ := m["name"].(string)
		return s
	}
	slices.SortFunc(items, func(a, b any) int { return strings.Compare(name(a), name(b)) })
}

// The chart installs what the kustomizations do, value by component. The Namespace is Helm's own to create.
func TestChart_EqualsKustomizations(t *testing.T) {
	const base, policy, mutating, monitoring = "base", "policy", env.MutatingWebhook, "monitoring"
	for name, c := range map[string]struct {
		values                string
		resources, components []string
	}{
		"default values are the overlay self-managed": {"", []string{base}, nil},
		"cert-manager":          {"certManager: {enabled: true}", []string{base}, []string{"cert-manager"}},
		"the policy":            {"policy: {create: true}", []string{base, policy}, nil},
		"strict":                {"strict: true", []string{base, policy}, []string{"strict"}},
		"audit-only":            {"auditOnly: true", []string{base, policy}, []string{"audit-only"}},
		"multi-tenant":          {"multiTenant: true", []string{base}, []string{"multi-tenant"}},
		"client-authentication": {"clientAuthentication: {enabled: true}", []string{base}, []string{"client-authentication"}},
		"audit-events":          {"audit: {events: true}", []string{base}, []string{"audit-events"}},
		"audit-health":          {"audit: {health: true}", []string{base}, []string{"audit-health"}},
		"audit-reports":         {"audit: {reports: openreports}", []string{base}, []string{"audit-reports"}},
		"read-secrets":          {"readSecrets: true", []string{base}, []string{"read-secrets"}},
		"inject-target-namespace": {
			"injectTargetNamespace: {enabled: true}", []string{base, mutating}, nil,
		},
		"monitoring":        {"monitoring: {enabled: true}", []string{base, monitoring}, nil},
		"grafana-dashboard": {"grafanaDashboard: {enabled: true}", []string{base}, []string{"grafana-dashboard"}},
		"the strictest installation": {
			"{strict: true, audit: {events: true, health: true, reports: openreports}, certManager: {enabled: true}, clientAuthentication: {enabled: true}, readSecrets: true, multiTenant: true, injectTargetNamespace: {enabled: true}}",
			[]string{base, policy, mutating}, []string{"audit-events", "audit-health", "audit-reports", "cert-manager", "client-authentication", "multi-tenant", "read-secrets", "strict"},
		},
		"all that goes with audit-only": {
			"{auditOnly: true, audit: {events: true, health: true, reports: openreports}, certManager: {enabled: true}, clientAuthentication: {enabled: true}, readSecrets: true, multiTenant: true, injectTargetNamespace: {enabled: true}}",
			[]string{base, policy, mutating}, []string{"audit-events", "audit-health", "audit-only", "audit-reports", "cert-manager", "client-authentication", "multi-tenant", "read-secrets"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := "resources:\n"
			for _, r := range c.resources {
				text += "- ../manifests/" + r + "\n"
			}
			text += "components:\n"
			for _, component := range c.components {
				text += "- ../manifests/components/" + component + "\n"
			}
			want := map[string]any{}
			for key, o := range objects(t, compose(t, text)) {
				if key != "Namespace/"+releaseNamespace {
					want[key] = normalized(t, o)
				}
			}
			got := map[string]any{}
			for key, o := range templated(t, releaseNamespace, c.values) {
				got[key] = normalized(t, o)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the chart differs (-kustomize +helm):\n%s", diff)
			}
		})
	}
}

// In another namespace nothing refers to that of the kustomizations.
func TestChart_AnyNamespace(t *testing.T) {
	const all = "{strict: true, audit: {events: true, health: true, reports: policyreport}, certManager: {enabled: true}, readSecrets: true, injectTargetNamespace: {enabled: true}, monitoring: {enabled: true}}"
	for key, o := range templated(t, "policies", all) {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), releaseNamespace) {
			t.Errorf("%s names the namespace %s:\n%s", key, releaseNamespace, text)
		}
	}
}

// Values that name no field, or that contradict each other, are refused by the chart's own schema.
func TestChart_RefusesWrongValues(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"replica=3", "additional properties 'replica' not allowed"},
		{"replicas=0", "minimum: got 0, want 1"},
		{"certManager=true", "got boolean, want object"},
		{"image.digest=sha256:1", "does not match pattern"},
		{"strict=true,auditOnly=true", "'not' failed"},
		{"extraArgs={serve}", "does not match pattern"},
	} {
		if out, err := helm(t, "template", "CHART", "--kube-version", "1.37.0", "--set", c.set); err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v, want %q in\n%s", c.set, err, c.want, out)
		}
	}
	if out, err := helm(t, "template", "CHART", "--kube-version", "1.29.0"); err == nil || !strings.Contains(out, "incompatible with Kubernetes") {
		t.Errorf("Kubernetes 1.29: %v\n%s", err, out)
	}
}

// The values of a policy are merged into the default policy, and the others that change a Pod reach it.
func TestChart_Values(t *testing.T) {
	built := templated(t, "policies", `
image: {repository: registry.example.com/fa, digest: "sha256:`+strings.Repeat("a", 64)+`", pullPolicy: Always}
policy: {create: true, spec: {rules: {cnpg-monitoring-enabled: {action: Warn}}}}
clientAuthentication: {enabled: true, configMap: ca, names: [kube-apiserver]}
injectTargetNamespace: {enabled: true, namespaces: [flux-system, tenants]}
extraArgs: [--log-level=debug]
extraEnv: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
podLabels: {team: platform}
tolerations: [{key: infra, operator: Exists}]
networkPolicy: {enabled: false}
`)
	rules, _, _ := unstructured.NestedMap(built["AdmissionPolicy/default"].Object, "spec", "rules")
	if got, _, _ := unstructured.NestedString(rules, "cnpg-monitoring-enabled", "action"); got != "Warn" || len(rules) < 10 {
		t.Errorf("the policy has %d rules, and cnpg-monitoring-enabled has the action %q", len(rules), got)
	}
	if built["NetworkPolicy/flux-admission"] != nil {
		t.Error("there is a NetworkPolicy")
	}
	text, err := yaml.Marshal(built["Deployment/flux-admission"].Object)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"image: registry.example.com/fa@sha256:aaaa", "imagePullPolicy: Always", "--client-ca-name=kube-apiserver", "--log-level=debug",
		"value: http://proxy:3128", "team: platform", "key: infra", "name: ca\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the Deployment lacks %q:\n%s", want, text)
		}
	}
	text, err = yaml.Marshal(built["MutatingWebhookConfiguration/flux-admission"].Object)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "- flux-system\n      - tenants\n") {
		t.Errorf("the mutating webhook is not sent Kustomizations of tenants:\n%s", text)
	}
}

// Helm lints the chart without a finding, and installs, upgrades and removes it on an API server of its own: the objects that
// other tests install have no release.
func TestChart_Installs(t *testing.T) {
	crds, err := env.CertManagerCRDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	empty, err := controlplane.Start(t.Context(), controlplane.Options{CRDs: []string{crds}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := empty.Stop(); err != nil {
			t.Error(err)
		}
	})
	const namespace = "policies"
	run := func(args ...string) {
		t.Helper()
		if out, err := helm(t, append(args, "--namespace", namespace, "--kubeconfig", empty.Kubeconfig())...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	exists := func(kind, name string, want bool) {
		t.Helper()
		out, stderr, err := empty.Kubectl(t.Context(), nil, "get", "--ignore-not-found", "--output=name", "--namespace", namespace, kind, name)
		if err != nil || (out != "") != want {
			t.Errorf("%s %s exists: %v, want %v; %v %s", kind, name, out != "", want, err, stderr)
		}
	}
	run("lint", "--strict", "CHART")
	run("install", "flux-admission", "CHART", "--create-namespace", "--set", "policy.create=true")
	exists("deployment", "flux-admission", true)
	exists("admissionpolicy", "default", true)
	exists("clusterrole", "flux-admission-ca", true)
	run("upgrade", "flux-admission", "CHART", "--set", "certManager.enabled=true")
	exists("certificate", "flux-admission", true)
	exists("clusterrole", "flux-admission-ca", false)
	exists("admissionpolicy", "default", false)
	run("uninstall", "flux-admission")
	for kind, name := range map[string]string{
		"deployment": "flux-admission", "validatingwebhookconfiguration": "flux-admission", "clusterrole": "flux-admission",
		"validatingadmissionpolicy": "flux-admission-ca-bundle", "certificate": "flux-admission",
	} {
		exists(kind, name, false)
	}
	// Its objects would go with it.
	exists("crd", "admissionpolicies.flux-admission.dev", true)
}
