package manifests_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var rule struct {
		Spec struct {
			Groups []struct {
				Rules []alert `json:"rules"`
			} `json:"groups"`
		} `json:"spec"`
	}
	read(t, "monitoring/prometheusrule.yaml", &rule)
	var out []alert
	for _, group := range rule.Spec.Groups {
		out = append(out, group.Rules...)
	}
	if len(out) == 0 {
		t.Fatal("there are no alerts")
	}
	return out
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// TestAlerts_Fire checks that `make alerts` has a test in which each alert fires.
func TestAlerts_Fire(t *testing.T) {
	var tests struct {
		Tests []struct {
			AlertRuleTest []struct {
				AlertName string           `json:"alertname"`
				ExpAlerts []map[string]any `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	read(t, "monitoring/prometheusrule_test.yaml", &tests)
	fires := map[string]bool{}
	for _, test := range tests.Tests {
		for _, check := range test.AlertRuleTest {
			fires[check.AlertName] = fires[check.AlertName] || len(check.ExpAlerts) > 0
		}
	}
	for _, a := range alerts(t) {
		if !fires[a.Alert] {
			t.Errorf("no test shows that %s fires", a.Alert)
		}
	}
}

// TestAlerts_Runbook checks that each alert has a section of the runbook, at the URL that it shows.
func TestAlerts_Runbook(t *testing.T) {
	runbook, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts(t) {
		if !strings.Contains(string(runbook), "\n### "+a.Alert+"\n") {
			t.Errorf("docs/operating.md has no section on %s", a.Alert)
		}
		if url := a.Annotations["runbook_url"]; !strings.HasSuffix(url, "/docs/operating.md#"+strings.ToLower(a.Alert)) {
			t.Errorf("%s: runbook_url %q", a.Alert, url)
		}
		if a.Annotations["summary"] == "" || a.Labels["severity"] == "" {
			t.Errorf("%s has no summary or no severity", a.Alert)
		}
	}
}

// TestAlerts_EveryFailure checks that the alerts of the table "How it fails" of docs/failures.md exist, at least one in each row.
func TestAlerts_EveryFailure(t *testing.T) {
	page, err := os.ReadFile("../docs/failures.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## How it fails\n")
	section, _, _ = strings.Cut(section, "\n## ")
	known := map[string]bool{}
	for _, a := range alerts(t) {
		known[a.Alert] = true
	}
	rows := 0
	for line := range strings.SplitSeq(section, "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| event") {
			continue
		}
		rows++
		names := alertName.FindAllString(line, -1)
		if len(names) == 0 {
			t.Errorf("no alert for: %s", line)
		}
		for _, name := range names {
			if !known[name] {
				t.Errorf("there is no alert %s", name)
			}
		}
	}
	if rows < 5 {
		t.Errorf("the table has %d rows", rows)
	}
}

var alertName = regexp.MustCompile(`\bFluxAdmission[A-Za-z]+`)

// TestAlerts_MetricsExist checks that the alerts use metrics and labels that there are.
func TestAlerts_MetricsExist(t *testing.T) {
	queries := map[string]string{}
	for _, a := range alerts(t) {
		queries[a.Alert] = a.Expr
	}
	checkQueries(t, queries)
}
