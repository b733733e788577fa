package validators_test

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
)

// ownerParams are the parameters of ownerLabel.
type ownerParams struct {
	// Label is the key of the label.
	Label string `json:"label,omitempty"`
}

// ownerLabel is a complete rule: its declaration and its check.
var ownerLabel = &validators.Rule{
	Meta: validators.Meta{
		ID:       "EX001",
		Name:     "config-map-owner",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{{Kind: "ConfigMap"}}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityWarning,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionWarn, Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "ConfigMap has no owner",
			Why:   "Nobody is responsible for a ConfigMap without an owner.",
			Fix:   "Set the label to the name of a team.",
			Since: "v0.1.0",
		},
		Params: func() any { return &ownerParams{Label: "owner"} },
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		label := p.Params.(*ownerParams).Label
		if p.Object.GetLabels()[label] != "" {
			return nil
		}
		f := p.Report(validators.NewPath("metadata", "labels", label), nil, "label %q is missing", label)
		f.Edits = []validators.Edit{{Op: validators.EditAdd, Path: f.Path, Value: "platform"}}
		return nil
	},
}

func configMap(labels map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "ConfigMap",
		"metadata":   map[string]any{"name": "settings", "namespace": "apps", "labels": labels},
	}}
}

func ExampleRule() {
	fmt.Println(ownerLabel.ID, ownerLabel.Doc.Title)
	fmt.Println("matches", ownerLabel.Scope)
	fmt.Println("evaluated at", ownerLabel.Stages)
	fmt.Println("default action at admission:", ownerLabel.DefaultAt(validators.StageAdmission))
	// Output:
	// EX001 ConfigMap has no owner
	// matches ConfigMap
	// evaluated at admission|offline|audit
	// default action at admission: Warn
}

func ExampleSuite_Evaluate() {
	suite, err := validators.NewSuite(ownerLabel)
	if err != nil {
		fmt.Println(err)
		return
	}
	result := suite.Evaluate(context.Background(), validators.Request{
		Operation: validators.Create, Stage: validators.StageAdmission, Object: configMap(map[string]any{"app": "web"}),
	}, lookup.NewMemory())
	for _, f := range result.Findings {
		fmt.Printf("%s: %s. %s\n", f.Path, f.Message, f.Fix)
	}
	// Output:
	// metadata.labels.owner: label "owner" is missing. Set the label to the name of a team.
}

// An update is not refused for what the stored object has already.
func ExampleSuite_Evaluate_update() {
	suite, err := validators.NewSuite(ownerLabel)
	if err != nil {
		fmt.Println(err)
		return
	}
	before, after := configMap(map[string]any{"app": "web"}), configMap(map[string]any{"app": "shop"})
	result := suite.Evaluate(
		context.Background(),
		validators.Request{Operation: validators.Update, Object: after, Old: before},
		lookup.NewMemory(),
	)
	for _, f := range result.Findings {
		fmt.Println(f.Message, f.Preexisting)
	}
	// Output:
	// label "owner" is missing true
}

func ExampleSuite_Bind() {
	suite, err := validators.NewSuite(ownerLabel)
	if err != nil {
		fmt.Println(err)
		return
	}
	bound := suite.Bind(
		map[string]any{"config-map-owner": &ownerParams{Label: "team"}},
		func(*validators.Meta) bool { return true },
	)
	for _, f := range bound.Evaluate(context.Background(), validators.Request{Object: configMap(nil)}, lookup.NewMemory()).Findings {
		fmt.Println(f.Message)
	}
	// Output:
	// label "team" is missing
}

func ExamplePatchObject() {
	edits := []validators.Edit{
		{Op: validators.EditAdd, Path: validators.NewPath("metadata", "labels", "owner"), Value: "platform"},
	}
	patched, err := validators.PatchObject(configMap(map[string]any{"app": "web"}), edits)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(patched.GetLabels())
	// Output:
	// map[app:web owner:platform]
}

// A lookup has three results; a rule reports on Absent only.
func ExampleLookup() {
	var look validators.Lookup = lookup.NewMemory(configMap(nil))
	for _, name := range []string{"settings", "gone"} {
		_, presence, _ := look.Get(
			context.Background(),
			schema.GroupKind{Kind: "ConfigMap"},
			types.NamespacedName{Namespace: "apps", Name: name},
		)
		fmt.Println(name, presence)
	}
	// Output:
	// settings present
	// gone absent
}

func ExamplePath() {
	path := validators.NewPath("spec", "patches").Index(2).Child("patch")
	fmt.Println(path)
	fmt.Println(path.Pointer())
	// Output:
	// spec.patches[2].patch
	// /spec/patches/2/patch
}
