package targetnamespace_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/internal/match"
	"github.com/flux-admission/flux-admission/mutators"
	"github.com/flux-admission/flux-admission/mutators/targetnamespace"
	"github.com/flux-admission/flux-admission/validators"
)

func kustomization(target string, labels map[string]any) *unstructured.Unstructured {
	spec := map[string]any{"path": "./kubernetes/apps/airflow/app", "prune": true}
	if target != "" {
		spec["targetNamespace"] = target
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": map[string]any{"name": "airflow", "namespace": "flux-system", "labels": labels},
		"spec":     spec,
	}}
}

func release(target string) *unstructured.Unstructured {
	o := kustomization(target, nil)
	o.Object["apiVersion"], o.Object["kind"] = "helm.toolkit.fluxcd.io/v2", "HelmRelease"
	return o
}

func namespace(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{
		Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}},
	}
}

var byPath = targetnamespace.Setting{
	Match:           match.Match{Namespaces: []string{"flux-system"}, Path: `^\./kubernetes/apps/(?P<ns>[^/]+)/`},
	TargetNamespace: "{ns}",
}

func TestMutate(t *testing.T) {
	byLabel := targetnamespace.Setting{TargetNamespaceLabel: "example.com/team"}
	constant := targetnamespace.Setting{Match: match.Match{Kinds: []string{"HelmRelease"}}, TargetNamespace: "releases"}
	other := targetnamespace.Setting{Match: match.Match{Namespaces: []string{"elsewhere"}}, TargetNamespace: "never"}
	unknown := lookup.NewMemory()
	unknown.Hide(schema.GroupKind{Kind: "Namespace"}, types.NamespacedName{Name: "airflow"}, errors.New("no permission"))
	all := lookup.NewMemory(namespace("airflow"), namespace("releases"), namespace("data"))
	for name, tc := range map[string]struct {
		settings targetnamespace.Settings
		object   *unstructured.Unstructured
		old      *unstructured.Unstructured
		lookup   *lookup.Memory
		want     string // spec.targetNamespace afterwards
		edits    int
		warning  string
		skipped  string
	}{
		"a create without the field gets the namespace that the path captures": {
			settings: targetnamespace.Settings{other, byPath}, object: kustomization("", nil), lookup: all, want: "airflow", edits: 1,
		},
		"a create with the field is never changed": {
			settings: targetnamespace.Settings{byPath}, object: kustomization("data", nil), lookup: all, want: "data",
		},
		"without a setting nothing is done": {
			settings: targetnamespace.Settings{}, object: kustomization("", nil), lookup: all,
		},
		"a setting that does not match does nothing": {
			settings: targetnamespace.Settings{other}, object: kustomization("", nil), lookup: all,
		},
		"a label names the namespace": {
			settings: targetnamespace.Settings{byLabel}, object: kustomization("", map[string]any{"example.com/team": "data"}), lookup: all, want: "data", edits: 1,
		},
		"without the label nothing is set, and that is recorded": {
			settings: targetnamespace.Settings{byLabel}, object: kustomization("", nil), lookup: all, skipped: "the label is missing or empty",
		},
		"a label that is no namespace name is not used": {
			settings: targetnamespace.Settings{byLabel}, object: kustomization("", map[string]any{"example.com/team": "Data_1"}), lookup: all,
			skipped: `"Data_1" is not a valid namespace name`,
		},
		"a HelmRelease is filled in only where the policy names the kind": {
			settings: targetnamespace.Settings{byPath, constant}, object: release(""), lookup: all, want: "releases", edits: 1,
		},
		"a HelmRelease is left alone by a setting for Kustomizations": {
			settings: targetnamespace.Settings{byLabel}, object: release(""), lookup: all,
		},
		"a namespace that does not exist is not used, and the user is warned": {
			settings: targetnamespace.Settings{byPath}, object: kustomization("", nil), lookup: lookup.NewMemory(),
			warning: `namespace "airflow" does not exist; create it first, or set the field`, skipped: `namespace "airflow" does not exist`,
		},
		"a namespace that cannot be read is not used": {
			settings: targetnamespace.Settings{byPath}, object: kustomization("", nil), lookup: unknown, skipped: `cannot determine whether namespace "airflow" exists: Namespace /airflow: no permission`,
		},
		"an update never sets the field": {
			settings: targetnamespace.Settings{byPath}, object: kustomization("", nil), old: kustomization("", nil), lookup: all,
		},
		"an update that leaves the field out gets the stored value back": {
			settings: targetnamespace.Settings{byPath}, object: kustomization("", nil), old: kustomization("data", nil), lookup: all, want: "data", edits: 1,
			warning: "spec.targetNamespace stays data",
		},
		"an update that keeps the field is not touched": {
			settings: targetnamespace.Settings{byPath}, object: kustomization("data", nil), old: kustomization("data", nil), lookup: all, want: "data",
		},
		"a user's change stays and is warned about with what it deletes": {
			settings: targetnamespace.Settings{byPath}, object: kustomization("airflow", nil), old: kustomization("data", nil), lookup: all, want: "airflow",
			warning: "with prune on, Flux will delete what this Kustomization applied to data",
		},
		"a release's change warns about what is uninstalled": {
			settings: targetnamespace.Settings{constant}, object: release("airflow"), old: release("data"), lookup: all, want: "airflow",
			warning: "helm-controller will uninstall the release from data and install it in airflow",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tc.settings.Compile(); err != nil {
				t.Fatal(err)
			}
			set, err := mutators.NewSet(targetnamespace.Mutator)
			if err != nil {
				t.Fatal(err)
			}
			set = set.Bind(map[string]any{"target-namespace": &tc.settings})
			req := validators.Request{Operation: validators.Create, Object: tc.object}
			if tc.old != nil {
				req.Operation, req.Old = validators.Update, tc.old
			}
			res := set.Evaluate(t.Context(), req, tc.lookup)
			if len(res.Errors) > 0 {
				t.Fatal(res.Errors)
			}
			if len(res.Edits) != tc.edits || len(res.Reasons) != tc.edits {
				t.Errorf("edits %v for reasons %q, want %d", res.Edits, res.Reasons, tc.edits)
			}
			contains(t, "warning", res.Warnings, tc.warning)
			contains(t, "skip", res.Skipped, tc.skipped)
			after, err := validators.PatchObject(tc.object, res.Edits)
			if err != nil {
				t.Fatal(err)
			}
			if got, _, _ := unstructured.NestedString(after.Object, "spec", "targetNamespace"); got != tc.want {
				t.Errorf("targetNamespace is %q afterwards, want %q", got, tc.want)
			}
			req.Object = after
			if again := set.Evaluate(t.Context(), req, tc.lookup); len(again.Edits) > 0 {
				t.Errorf("a second run edits again: %v", again.Edits)
			}
		})
	}
}

func contains(t *testing.T, what string, got []string, want string) {
	t.Helper()
	if want == "" && len(got) > 0 ||
		want != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, want) }) {
		t.Errorf("%ss %q, want %q", what, got, want)
	}
}

func TestCompileNamesTheField(t *testing.T) {
	for name, tc := range map[string]struct {
		setting targetnamespace.Setting
		want    string
	}{
		"an expression that does not parse": {
			targetnamespace.Setting{Match: match.Match{Path: "("}, TargetNamespace: "x"}, "[0].match.path: not a regular expression (RE2 syntax)",
		},
		"a placeholder that the expression does not capture": {
			targetnamespace.Setting{Match: match.Match{Path: "^x/(?P<team>.*)"}, TargetNamespace: "{ns}"},
			"[0].targetNamespace: {ns} is not a named group of match.path; write it there as (?P<ns>[^/]+)",
		},
		"a path for HelmReleases": {
			targetnamespace.Setting{Match: match.Match{Kinds: []string{"HelmRelease"}, Path: "x"}, TargetNamespace: "x"}, "[0].match.path: a HelmRelease has no spec.path",
		},
		"a constant that is no namespace name": {targetnamespace.Setting{TargetNamespace: "Not_A_Name"}, `[0].targetNamespace: "Not_A_Name" cannot become a namespace name`},
		"a label key that is none":             {targetnamespace.Setting{TargetNamespaceLabel: "a b"}, `[0].targetNamespaceLabel: "a b" is not a label key`},
		"neither of the two":                   {targetnamespace.Setting{}, "[0].targetNamespace: set exactly one"},
		"both of the two":                      {targetnamespace.Setting{TargetNamespace: "a", TargetNamespaceLabel: "b"}, "[0].targetNamespace: set exactly one"},
	} {
		t.Run(name, func(t *testing.T) {
			err := targetnamespace.Settings{tc.setting}.Compile()
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
