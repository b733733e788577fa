package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

const chartDir = "manifests/chart"

// generateChart copies into the Helm chart what it shares with the kustomizations, since a chart has no files outside of its directory. It runs after
// the generators of these files.
func generateChart(out files) error {
	webhooks, err := webhookconfig.Files()
	if err != nil {
		return err
	}
	copies := map[string]string{
		"crds/admissionpolicies.yaml":   "crd/flux-admission.dev_admissionpolicies.yaml",
		"files/policy.yaml":             "policy/default.yaml",
		"files/certificate.yaml":        "components/cert-manager/certificate.yaml",
		"files/audit-events.yaml":       "components/audit-events/rbac.yaml",
		"files/audit-health.yaml":       "components/audit-health/rbac.yaml",
		"files/audit-reports.yaml":      "components/audit-reports/rbac.yaml",
		"files/read-secrets.yaml":       "components/read-secrets/rbac.yaml",
		"files/mutating-webhook.yaml":   "inject-target-namespace/mutating-webhook.yaml",
		"files/validating-webhook.yaml": "base/validating-webhook.yaml",
		"files/prometheusrule.yaml":     "monitoring/prometheusrule.yaml",
		"files/servicemonitor.yaml":     "monitoring/servicemonitor.yaml",
		"files/dashboard.json":          "components/grafana-dashboard/dashboard.json",
	}
	for _, name := range []string{
		"ca-bundle-policy", "networkpolicy", "poddisruptionbudget", "rbac", "rbac-ca", "rbac-generated", "resourcequota", "service", "serviceaccount",
	} {
		copies["files/"+name+".yaml"] = "base/" + name + ".yaml"
	}
	for to, from := range copies {
		path := filepath.Join("manifests", from)
		data, generated := out[path]
		if !generated {
			data, generated = webhooks[from]
		}
		if !generated {
			if data, err = os.ReadFile(filepath.Join(root, path)); err != nil {
				return fmt.Errorf("copying into the chart: %w", err)
			}
		}
		if filepath.Ext(path) != ".json" { // JSON has no comments
			data = append(fmt.Appendf(nil, "# Copied from %s by make generate; change it there.\n", path), data...)
		}
		out[filepath.Join(chartDir, to)] = data
	}
	return nil
}
