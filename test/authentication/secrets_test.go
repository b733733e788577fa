package authentication_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// tenant is a client of a user who may create HelmReleases in a namespace and read no Secret.
func tenant(t *testing.T, namespace string) client.Client {
	t.Helper()
	err := shared.Apply(t.Context(), fmt.Sprintf(`apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tenant, namespace: %[1]s}
rules:
  - {apiGroups: [helm.toolkit.fluxcd.io], resources: [helmreleases], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tenant}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: tenant-of-%[1]s}]
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: hostile, namespace: %[1]s}
spec: {url: %[2]s, interval: 1h}
`, namespace, shared.Charts.URL))
	if err != nil {
		t.Fatal(err)
	}
	config, err := shared.ControlPlane.User("tenant-of-" + namespace)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dryRun returns the answer to a release, as the tenant sees it.
func dryRun(t *testing.T, c client.Client, namespace, from, values string) string {
	t.Helper()
	o := &unstructured.Unstructured{}
	err := yaml.Unmarshal([]byte(fmt.Sprintf(`apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: probe, namespace: %s}
spec:
  interval: 10m
  chart: {spec: {chart: hostile, sourceRef: {kind: HelmRepository, name: hostile}}}
  valuesFrom: [%s]
  values: %s
`, namespace, from, values)), &o.Object)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Create(t.Context(), o, client.DryRunAll)
	if err != nil && !apierrors.IsForbidden(err) {
		t.Fatal(err)
	}
	return fmt.Sprint(err)
}

// A tenant who writes both the release and the schema learns whether the values of a Secret of the namespace satisfy
// the schema, and nothing else: the schema here has an answer for each bit of four characters of the Secret, if an answer
// quotes patterns, positions or what is missing. Neither do the audit annotations, the log and the metrics have more.
func TestTenant_LearnsOneBit(t *testing.T) {
	ns := shared.Namespace(t, "tenant-")
	c := tenant(t, ns)
	answers, records := map[string][]string{}, map[string][]string{}
	for _, value := range []string{
		"Zq9x", "aaaa", "zzzz", "Zq9y", "0000", "hunter2", "a", "~~~~", "p4ssw0rd-that-is-long", "[1, 2]", "{a: b}", "true", "1e3", "\u00fc",
	} {
		secret := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: %s}\nstringData: {password: %q}\n", ns, value)
		if err := shared.Apply(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		before, lines := counters(t), len(shared.Webhook().Log())
		answer := dryRun(t, c, ns, "{kind: Secret, name: db, valuesKey: password, targetPath: p}", "{}")
		answers[answer] = append(answers[answer], value)
		annotations, err := shared.AuditAnnotations("helmreleases", ns, "probe")
		if err != nil {
			t.Fatal(err)
		}
		log := variable.ReplaceAllString(shared.Webhook().Log()[lines:], "")
		if value != "true" && len(value) > 3 && strings.Contains(log, value) {
			t.Errorf("the log has the value %q", value)
		}
		record := fmt.Sprint(annotations, "\n", log, "\n", increases(before, counters(t)))
		records[record] = append(records[record], value)
	}
	bits := math.Log2(float64(len(answers)))
	t.Logf("%d answers, %d records: %.1f bits", len(answers), len(records), bits)
	if bits > 1 {
		t.Errorf("the answers have %.1f bits: %v", bits, answers)
	}
	if len(records) > len(answers) {
		t.Errorf("the audit annotations, the log and the metrics differ where answers do not: %v", records)
	}
	// No value satisfies the schema, and one cannot be set at its targetPath.
	if got := answers["<nil>"]; len(got) != 1 || got[0] != "[1, 2]" {
		t.Errorf("the schema was not evaluated: %v", answers)
	}
	for answer := range answers {
		want := "the values fail the schema of chart hostile 1.0.0 with those of Secret " + ns + "/db"
		if answer != "<nil>" && !strings.Contains(answer, want) {
			t.Errorf("answer %q, want %q", answer, want)
		}
		for _, part := range []string{"pattern", "bit0", "known", "required", "/p"} {
			if strings.Contains(answer, part) {
				t.Errorf("answer %q has %q", answer, part)
			}
		}
	}
	// What does not depend on the Secret is reported as always.
	answer := dryRun(t, c, ns, "{kind: Secret, name: db, valuesKey: password, targetPath: q}", "{p: '!'}")
	if !strings.Contains(answer, "at '/p': does not match pattern") {
		t.Errorf("answer %q to a value of the release itself, want its position and pattern", answer)
	}
}

// variable matches what differs between any two requests in the log, and the lines of the background audit, which works meanwhile
// whether there are requests or not.
var variable = regexp.MustCompile(`"(time|uid)":"[^"]*",?|(?m)^\{.*"logger":"audit".*\n`)

// counters returns the counters of findings and inconclusive evaluations of the rules.
func counters(t *testing.T) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for _, name := range []string{
		"flux_admission_findings_total", "flux_admission_limited_findings_total", "flux_admission_unknown_evaluations_total",
		"flux_admission_rule_errors_total", "flux_admission_reviews_total", "flux_admission_chart_lookups_total",
	} {
		n, err := shared.Metric(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = n
	}
	return out
}

func increases(before, after map[string]float64) map[string]float64 {
	for name, n := range before {
		after[name] -= n
	}
	return after
}

// The credentials of the cluster itself are not read, whatever RBAC grants, even if a review of their namespaces comes:
// the answer is the same whether there is such a Secret.
func TestSystemNamespaces_AreNotRead(t *testing.T) {
	certificate, key, err := ca.issue(apiServerName)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}, //nolint:gosec // the response counts
	}}
	for _, ns := range []string{"kube-system", "flux-admission-system"} {
		secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: " + ns + "}\nstringData: {password: Zq9x}\n"
		if err := shared.Apply(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		var answers []string
		for _, name := range []string{"db", "nosuch"} {
			review := fmt.Sprintf(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "1", "operation": "CREATE",
				"kind": {"group": "helm.toolkit.fluxcd.io", "version": "v2", "kind": "HelmRelease"}, "namespace": "%[1]s", "name": "probe",
				"object": {"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": {"name": "probe", "namespace": "%[1]s"},
				"spec": {"chartRef": {"kind": "OCIRepository", "name": "x"}, "valuesFrom": [{"kind": "Secret", "name": "%[2]s", "valuesKey": "password"}]}}}}`, ns, name)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+shared.Address+"/validate", strings.NewReader(review))
			if err != nil {
				t.Fatal(err)
			}
			response, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("status %d: %s %v", response.StatusCode, body, err)
			}
			answers = append(answers, strings.ReplaceAll(string(body), name, "NAME"))
		}
		if answers[0] != answers[1] {
			t.Errorf("%s: answers %q differ", ns, answers)
		}
	}
}
