package audit

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/report"
	"github.com/flux-admission/flux-admission/validators/flux"
)

func finding(name string, action v1alpha1.Action, message string) report.Finding {
	return report.Finding{
		Rule: "kustomization-namespace", ID: "KS001", Action: action, Message: message, Fix: message,
		Object: report.Object{APIVersion: "kustomize.toolkit.fluxcd.io/v1", Kind: "Kustomization", Namespace: "apps", Name: name},
	}
}

func id(name string) object {
	return object{flux.Kustomization, types.NamespacedName{Namespace: "apps", Name: name}}
}

// TestResults_ReportsAreLimited has findings of 40 MiB: each report has at most 256 KiB, with those first that would be denied, and
// counts what is left out.
func TestResults_ReportsAreLimited(t *testing.T) {
	r := newResults()
	long := strings.Repeat("é\"\n", 4096)
	const objects = 20_000
	for i := range objects {
		action := v1alpha1.ActionWarn
		if i%100 == 0 {
			action = v1alpha1.ActionDeny
		}
		name := fmt.Sprint("web-", i)
		r.put(id(name), []report.Finding{finding(name, action, long)}, false)
	}
	written, omitted, denied, count := 0, 0, 0, 0
	for shard := range shards {
		content, err := r.report(shard)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(content)
		if err != nil || len(data) > maxReportBytes {
			t.Errorf("report %d has %d bytes: %v", shard, len(data), err)
		}
		results := content["results"].([]any)
		written += len(results)
		for _, one := range results {
			if one.(map[string]any)["result"] == "fail" {
				denied++
			}
		}
		annotations := content["metadata"].(map[string]any)["annotations"].(map[string]any)
		n, err := strconv.Atoi(annotations[omittedFinding].(string))
		if err != nil {
			t.Fatal(err)
		}
		omitted += n
		summary := content["summary"].(map[string]any)
		count += int(summary["fail"].(int64) + summary["warn"].(int64))
	}
	if written+omitted != objects || count != objects {
		t.Errorf("%d findings are written, %d omitted, %d counted; want %d", written, omitted, count, objects)
	}
	if denied != objects/100 {
		t.Errorf("%d findings that would be denied are written; want %d", denied, objects/100)
	}
}

// TestResults_FindingsAreLimited has more findings than are kept.
func TestResults_FindingsAreLimited(t *testing.T) {
	r := newResults()
	for i := range maxFindings + 10 {
		name := fmt.Sprint("web-", i)
		r.put(id(name), []report.Finding{finding(name, v1alpha1.ActionDeny, "no")}, false)
	}
	if s := r.Summary(); s.Omitted != 10 || s.Rules["kustomization-namespace"].Deny != maxFindings || s.total() != maxFindings+10 {
		t.Errorf("%d omitted, %v", s.Omitted, s.Rules)
	}
}

// TestResults_OnlyChangesAreWritten writes no report for an object whose findings are the same as before.
func TestResults_OnlyChangesAreWritten(t *testing.T) {
	r := newResults()
	r.began()
	r.put(id("web"), []report.Finding{finding("web", v1alpha1.ActionDeny, "no")}, false)
	if due := r.due(); due != nil {
		t.Errorf("before all objects were evaluated, %v are due", due)
	}
	r.completed()
	if due := r.due(); len(due) != shards {
		t.Errorf("at first, %v are due; want all", due)
	}
	r.put(id("web"), []report.Finding{finding("web", v1alpha1.ActionDeny, "no")}, false)
	r.completed()
	if due := r.due(); due != nil {
		t.Errorf("without a change, %v are due", due)
	}
	r.put(id("web"), nil, false)
	r.completed()
	if due := r.due(); len(due) != 1 || due[0] != shardOf(id("web")) {
		t.Errorf("after the repair, %v are due; want %d", due, shardOf(id("web")))
	}
	if content, err := r.report(shardOf(id("web"))); content != nil || err != nil {
		t.Errorf("the report has still findings: %v, %v", content, err)
	}
}
