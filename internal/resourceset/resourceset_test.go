package resourceset

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	var m map[string]any
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("parsing %q: %v", text, err)
	}
	return &unstructured.Unstructured{Object: m}
}

func TestBuild(t *testing.T) {
	provider := parse(t, "{kind: ResourceSetInputProvider, metadata: {name: p}, spec: {type: Static, defaultValues: {name: c}}}")
	for name, tc := range map[string]struct {
		spec     string
		provided []map[string]any
		want     []string
	}{
		"each input set of each resource": {
			spec: "{inputs: [{name: a}, {name: b}], resources: [{kind: Namespace, metadata: {name: << inputs.name >>}}]}",
			want: []string{"spec.resources[0] Namespace a", "spec.resources[0] Namespace b"},
		},
		"a provider's inputs after the own ones": {
			spec:     "{inputs: [{name: a}], inputsFrom: [{name: p}], resources: [{kind: Namespace, metadata: {name: '<< inputs.provider.kind >>-<< inputs.name >>'}}]}",
			provided: []map[string]any{Static(provider)},
			want:     []string{"spec.resources[0] Namespace ResourceSet-a", "spec.resources[0] Namespace ResourceSetInputProvider-c"},
		},
		"no inputs at all": {
			spec: "{resources: [{kind: Namespace, metadata: {name: a}}]}",
			want: []string{"spec.resources[0] Namespace a"},
		},
		"a provider without inputs": {
			spec: "{inputsFrom: [{name: p}], resources: [{kind: Namespace, metadata: {name: a}}]}",
		},
		"a text with several documents": {
			spec: `{resourcesTemplate: "<<- range $n := list \"x1\" \"x2\" >>\n---\nkind: Namespace\nmetadata: {name: << $n | upper >>}\n<<- end >>"}`,
			want: []string{"spec.resourcesTemplate Namespace X1", "spec.resourcesTemplate Namespace X2"},
		},
		"steps, the first object of a name, and a disabled one": {
			spec: "{inputs: [{}, {}], steps: [{resources: [{kind: Namespace, metadata: {name: a}}, {kind: Namespace, metadata: " +
				"{name: b, annotations: {fluxcd.controlplane.io/reconcile: disabled}}}]}]}",
			want: []string{"spec.steps[0].resources[0] Namespace a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			set := parse(t, "{apiVersion: fluxcd.controlplane.io/v1, kind: ResourceSet, metadata: {name: s}, spec: "+tc.spec+"}")
			objects, err := Build(set, tc.provided)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range objects {
				got = append(got, o.Template.String()+" "+o.GetKind()+" "+o.GetName())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBuild_Errors(t *testing.T) {
	for name, spec := range map[string]string{
		"a template that does not close": "{resources: [{kind: << inputs.a}]}",
		"an input that is not there":     "{inputs: [{a: b}], resources: [{kind: << inputs.b >>}]}",
		"a result that is not YAML":      `{resourcesTemplate: "a: [<< print 1 >>"}`,
		"a very large result":            `{resourcesTemplate: "<< repeat 2000000000 \"x\" >>"}`,
		"a very long list":               `{resourcesTemplate: "<< range until 2000000000 >><< end >>"}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Build(parse(t, "{kind: ResourceSet, spec: "+spec+"}"), nil)
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("the error is %v, not that of a template", err)
			}
		})
	}
}

func TestMayCreate(t *testing.T) {
	set := parse(t, `{spec: {resources: [{kind: Secret}], resourcesTemplate: "kind: Namespace\n"}}`)
	for kind, want := range map[string]bool{"Secret": true, "Namespace": true, "ConfigMap": false} {
		if got := MayCreate(set, kind); got != want {
			t.Errorf("may create %s: %t, want %t", kind, got, want)
		}
	}
	if !MayCreate(parse(t, `{spec: {resources: [{kind: << inputs.kind >>}]}}`), "Secret") {
		t.Error("a kind that depends on the inputs may be any")
	}
}
