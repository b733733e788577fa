package conformance_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/validators"
	allvalidators "github.com/flux-admission/flux-admission/validators/all"
)

// TestAdmissionReview_NamesNoOtherNamespace sends each case to the webhook server in a cluster where the namespaces that
// the object does not name have another name: whoever may write the object may not be allowed to know it. No response has
// it, in messages, warnings and audit annotations.
func TestAdmissionReview_NamesNoOtherNamespace(t *testing.T) {
	const hidden = "hidden-from-tenants"
	renamed := 0
	for _, rule := range allvalidators.Rules() {
		if !rule.Stages.Has(validators.StageAdmission) {
			continue
		}
		for _, original := range cases(t, rule) {
			text, err := json.Marshal([]any{original.Request.Object, original.Request.Old})
			if err != nil {
				t.Fatal(err)
			}
			c := *original
			c.Objects = nil
			replacements := []string{}
			for _, o := range original.Objects {
				if name := fmt.Sprintf("%q", o.GetNamespace()); o.GetNamespace() != "" && !strings.Contains(string(text), name) {
					replacements = append(replacements, name, fmt.Sprintf("%q", hidden))
				}
			}
			renamed += len(replacements) / 2
			for _, o := range original.Objects {
				data, err := o.MarshalJSON()
				if err != nil {
					t.Fatal(err)
				}
				other := &unstructured.Unstructured{}
				if err := other.UnmarshalJSON([]byte(strings.NewReplacer(replacements...).Replace(string(data)))); err != nil {
					t.Fatal(err)
				}
				c.Objects = append(c.Objects, other)
			}
			if len(replacements) > 0 {
				c.Objects = append(c.Objects, &unstructured.Unstructured{Object: map[string]any{
					"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": hidden},
				}})
			}
			t.Run(rule.Name+"/"+c.Name, func(t *testing.T) {
				response, err := json.Marshal(review(t, compile(t, &c, rule), c.Lookup(t, resolver), c.Request))
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(response), hidden) {
					t.Errorf("the response names a namespace that the object does not name: %s", response)
				}
			})
		}
	}
	if renamed < 10 {
		t.Errorf("only %d objects are in other namespaces", renamed)
	}
}
