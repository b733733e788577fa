package helmchart_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/internal/helmchart"
	"github.com/flux-admission/flux-admission/validators"
)

// withTemplates returns the chart app with the given files, prepared for templating.
func withTemplates(t testing.TB, files map[string]string) *helmchart.Chart {
	t.Helper()
	return newChart(t, files, helmchart.Options{Templates: true})
}

func asRelease(t testing.TB, inline string, from ...validators.ValuesSource) validators.Release {
	t.Helper()
	return validators.Release{Name: "web", Namespace: "apps", UnusedValues: true, Values: validators.Values{Namespace: "apps", From: from, Inline: object(t, inline).Object}}
}

func mustTemplate(t testing.TB, c *helmchart.Chart, r validators.Release) *validators.Templated {
	t.Helper()
	out, presence, err := c.Template(t.Context(), r)
	if presence != validators.Present || err != nil {
		t.Fatalf("Template() = %s, %v", presence, err)
	}
	return out
}

func listed(out *validators.Templated) []string {
	var got []string
	for _, o := range out.Objects {
		got = append(got, fmt.Sprintf("%s %s/%s %s:%d", o.Object.GetKind(), o.Object.GetNamespace(), o.Object.GetName(), o.Template, o.Line))
	}
	return got
}

func TestChart_Template(t *testing.T) {
	c := withTemplates(t, map[string]string{
		"Chart.yaml":  "apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies:\n- {name: db, version: 1.0.0, condition: db.enabled}\n- {name: spare, version: 1.0.0, condition: spare.enabled}\n",
		"values.yaml": "port: 80\nfile: motd\nspare: {enabled: false}\n",
		"files/motd":  "hello",
		"crds/widgets.yaml": "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.example.com}\n" +
			"---\n# nothing\n---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: gadgets.example.com}\n",
		"templates/_helpers.tpl": `{{- define "name" }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}`,
		"templates/NOTES.txt":    "{{ .Values.port }} is open",
		"templates/all.yaml": `# first
---
apiVersion: v1
kind: Service
metadata: {name: {{ include "name" . }}, namespace: {{ .Release.Namespace }}}
spec: {ports: [{port: {{ .Values.port }}}]}
---

apiVersion: v1
kind: ConfigMap
metadata: {name: motd}
data: {motd: {{ .Files.Get (printf "files/%s" .Values.file) | quote }}, install: {{ .Release.IsInstall | quote }}, port: {{ .Values.port | quote }}}
---
apiVersion: v1
kind: Pod
metadata: {name: test, annotations: {helm.sh/hook: test}}
---
apiVersion: v1
kind: Pod
metadata: {name: migrate, annotations: {helm.sh/hook: "pre-install,pre-upgrade"}}
---
apiVersion: v1
kind: ConfigMapList
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: two}}
`,
		"charts/db/Chart.yaml":          "apiVersion: v2\nname: db\nversion: 1.0.0\n",
		"charts/db/values.yaml":         "size: 1\n",
		"charts/db/templates/a.yaml":    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: db-{{ .Values.size }}}\n",
		"charts/spare/Chart.yaml":       "apiVersion: v2\nname: spare\nversion: 1.0.0\n",
		"charts/spare/templates/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: spare}\n",
	})
	out := mustTemplate(t, c, asRelease(t, "{port: 1000000, db: {size: 3}}"))
	if out.Failure != nil {
		t.Fatal(*out.Failure)
	}
	want := []string{
		"CustomResourceDefinition /widgets.example.com app/crds/widgets.yaml:1",
		"CustomResourceDefinition /gadgets.example.com app/crds/widgets.yaml:7",
		"ConfigMap /db-3 app/charts/db/templates/a.yaml:1",
		"Service apps/web-app app/templates/all.yaml:3",
		"ConfigMap /motd app/templates/all.yaml:9",
		"Pod /migrate app/templates/all.yaml:18",
		"ConfigMap /one app/templates/all.yaml:22",
		"ConfigMap /two app/templates/all.yaml:22",
	}
	if got := listed(out); !slices.Equal(got, want) {
		t.Errorf("objects (-want +got):\n%s", cmp.Diff(want, got))
	}
	// Flux hands Helm floats, and so do its templates print them.
	if got := fmt.Sprint(out.Objects[4].Object.Object["data"]); got != "map[install:true motd:hello port:1e+06]" {
		t.Error(got)
	}
	if got := c.CRDs(); !slices.Equal(got, []string{"gadgets.example.com", "widgets.example.com"}) {
		t.Error(got)
	}
	r := asRelease(t, "{}")
	r.SkipCRDs = true
	if got := listed(mustTemplate(t, c, r))[0]; !strings.HasPrefix(got, "ConfigMap /db-1") {
		t.Error(got)
	}
}

func TestChart_TemplateFailure(t *testing.T) {
	helpers := `{{- define "app.check" -}}
{{- if and (not .Values.db.host) .Values.db.enabled }}
{{- fail "db.host has to be set with db.enabled" }}
{{- end }}
{{- end -}}
{{- define "app.image" }}{{ required "an image is needed." .Values.image }}{{ end -}}
`
	cases := map[string]struct {
		template, values string
		want             string
	}{
		"a value that is required":                {`a: {{ required "set the host" .Values.host }}`, "{}", "app/templates/a.yaml:1:7 host: set the host"},
		"a value that is required, piped":         {"---\na: {{ .Values.host | required \"set the host\" }}", "{}", "app/templates/a.yaml:2:22 host: set the host"},
		"a value that a helper requires":          {`a: {{ include "app.image" . }}`, "{image: ''}", "app/templates/_helpers.tpl:6:29 image: an image is needed"},
		"a combination that a helper refuses":     {`{{ include "app.check" . }}`, "{db: {enabled: true, host: ''}}", "app/templates/_helpers.tpl:3:5 db.host: db.host has to be set with db.enabled"},
		"a value of the root":                     {`{{ range $i := until 1 }}{{ fail (print "no " $.Values.name) }}{{ end }}`, "{name: x}", "app/templates/a.yaml:1:29 name: no x"},
		"a field of what is not set":              {`a: {{ .Values.a.b.c }}`, "{}", `app/templates/a.yaml:1:14 a.b.c: nil pointer evaluating interface {}.b`},
		"a field of a text":                       {`a: {{ include "app.field" . }}{{ define "app.field" }}{{ .Values.a.b }}{{ end }}`, "{a: text}", `app/templates/a.yaml:1:65 a.b: can't evaluate field b in type interface {}`},
		"a field in a with":                       {`{{ with .Values.a }}{{ .b.c }}{{ end }}`, "{a: {d: 1}}", "app/templates/a.yaml:1:26 a.b.c: nil pointer evaluating interface {}.c"},
		"a function that is given something else": {`a: {{ trimSuffix "x" .Values.a }}`, "{a: [1]}", "app/templates/a.yaml:1:29 a: wrong type for value; expected string; got []interface {}"},
		"a function that does not exist":          {"\n{{ nothing }}", "{}", `app/templates/a.yaml:2:0 : function "nothing" not defined`},
		"a template that does not exist":          {"\n{{ include \"nothing\" . }}", "{}", `app/templates/a.yaml:2:4 : error calling include: template: no template "nothing" associated with template "gotpl"`},
		"a value that is a template":              {"\n\na: {{ tpl .Values.a . }}", `{a: "\n\n\n\n\n{{ fail \"inside\" }}"}`, "app/templates/a.yaml:3:7 a: inside"},
		"a value that a helper is given":          {`{{ range .Values.more }}{{ include "app.more" (dict "value" . "context" $) }}{{ end }}{{ define "app.more" }}{{ tpl .value .context }}{{ end }}`, `{more: ['{{ fail "no more" }}']}`, "app/templates/a.yaml:1:113 more: no more"},
		"a subchart's value":                      {"a: 1", "{store: {deep: x}}", "app/charts/store/templates/a.yaml:1:25 store.deep: no deep"},
		"a global value":                          {"a: 1", "{global: {zone: x}}", "app/charts/store/templates/a.yaml:2:32 global.zone: no zone"},
		"a text that is not YAML":                 {"---\n# b\n---\nkind: X\na: {{ .Values.a }}", "{a: 'b: c'}", "app/templates/a.yaml:0:0 : its output is not YAML: line 5 of the output: mapping values are not allowed in this context"},
		"an object without a kind":                {"a: b", "{}", "app/templates/a.yaml:0:0 : its output has an object without a kind"},
		"an object without an apiVersion":         {"kind: Pod", "{}", "app/templates/a.yaml:0:0 : its output has a Pod without an apiVersion"},
		"a list where an object should be":        {"- a", "{}", "app/templates/a.yaml:0:0 : its output is not an object"},
		"a failure with any value of a variable":  {`{{ .Values.a }}{{ fail "no" }}`, "{a: '${A}'}", "app/templates/a.yaml:1:19 : no"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := withTemplates(t, map[string]string{
				"Chart.yaml":                 "apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies: [{name: db, alias: store, version: 1.0.0}]\n",
				"values.yaml":                "db: {enabled: false}\n",
				"templates/_helpers.tpl":     helpers,
				"templates/a.yaml":           tc.template,
				"charts/db/Chart.yaml":       "apiVersion: v2\nname: db\nversion: 1.0.0\n",
				"charts/db/templates/a.yaml": "{{ if .Values.deep }}{{ fail \"no deep\" }}{{ end }}\n{{ if .Values.global.zone }}{{ fail \"no zone\" }}{{ end }}",
			})
			f := mustTemplate(t, c, asRelease(t, tc.values)).Failure
			if f == nil {
				t.Fatal("the chart templates without a failure")
			}
			if got := fmt.Sprintf("%s:%d:%d %s: %s", f.Template, f.Line, f.Column, f.Values, f.Message); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestChart_TemplateFailureQuotesNoSecret(t *testing.T) {
	c := withTemplates(t, map[string]string{"templates/a.yaml": `{{ fail (printf "bad: %s, %q, %s and %v in level %s" .Values.password .Values.key .Values.key .Values.pin .Values.level) }}`})
	secret := "password: hunter2\nkey: |\n  -----BEGIN\n  abcdef\npin: 77\nlevel: a\n"
	f := mustTemplate(t, c, asRelease(t, "{}", from("Secret", "db", "", secret), from("Secret", "more", "other", "topsecret"))).Failure
	want := "bad: (from a Secret), \"(from a Secret)\\n\", (from a Secret) and (from a Secret) in level (from a Secret)"
	if f == nil || f.Message != want {
		t.Fatalf("%+v\nwant %s", f, want)
	}
}

func TestChart_TemplateUnknown(t *testing.T) {
	unread := validators.ValuesSource{Kind: "Secret", Name: "db"}
	cases := map[string]struct {
		files  map[string]string
		values string
		from   []validators.ValuesSource
		want   string
	}{
		"no templates":               {map[string]string{"values.yaml": "a: 1\n"}, "{}", nil, "the chart's templates were not loaded"},
		"an unreadable Secret":       {map[string]string{"templates/a.yaml": ""}, "{}", []validators.ValuesSource{unread}, "some values are missing: Secret apps/db could not be read"},
		"a variable":                 {map[string]string{"templates/a.yaml": `{{ if ne .Values.a "1" }}{{ fail "want 1" }}{{ end }}`}, "{a: '${A}'}", nil, "templating fails with unresolved variables or encrypted values in place"},
		"a lookup in the cluster":    {map[string]string{"templates/a.yaml": `{{ if not (lookup "v1" "Secret" "" "") }}{{ fail "make it first" }}{{ end }}`}, "{}", nil, "a template looks up objects of the cluster, which are not available here"},
		"another Kubernetes version": {map[string]string{"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\nkubeVersion: <1.20.0\n", "templates/a.yaml": ""}, "{}", nil, "the chart requires Kubernetes <1.20.0; charts are templated for "},
		"a missing subchart":         {map[string]string{"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies: [{name: db, version: 1.0.0}]\n", "templates/a.yaml": ""}, "{}", nil, "subchart db is missing: Flux fetches it when it packages the chart"},
		"a very large output":        {map[string]string{"templates/a.yaml": `{{ range until 1000 }}{{ repeat 100000 "x" }}{{ end }}`}, "{}", nil, "the templates produce more than 32 MiB"},
		"a very long list":           {map[string]string{"templates/a.yaml": `{{ range until 2000000000 }}{{ end }}`}, "{}", nil, "the result of a template function is too large"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			out, presence, err := withTemplates(t, tc.files).Template(t.Context(), asRelease(t, tc.values, tc.from...))
			if presence != validators.Unknown || err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Fatalf("%v %s: %v", out, presence, err)
			}
		})
	}
	t.Run("a chart loaded without templates", func(t *testing.T) {
		_, presence, err := newChart(t, map[string]string{"templates/a.yaml": ""}, helmchart.Options{}).Template(t.Context(), asRelease(t, "{}"))
		if presence != validators.Unknown || err == nil {
			t.Fatalf("%s: %v", presence, err)
		}
	})
}

func TestChart_TemplateTimeout(t *testing.T) {
	c := withTemplates(t, map[string]string{"templates/a.yaml": `{{ range until 10000 }}{{ range until 10000 }}{{ range until 10 }}{{ end }}{{ end }}{{ end }}`})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, presence, err := c.Template(ctx, asRelease(t, "{}"))
	if presence != validators.Unknown || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%s: %v", presence, err)
	}
}

func TestChart_TemplateAssumesQueriedAPIVersions(t *testing.T) {
	c := withTemplates(t, map[string]string{
		"templates/a.yaml": `{{ if not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") }}{{ fail "install Prometheus first" }}{{ end }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: app}
`})
	out := mustTemplate(t, c, asRelease(t, "{}"))
	if got := listed(out); out.Failure != nil || len(got) != 1 {
		t.Fatal(out.Failure, got)
	}
}

func TestChart_UnusedValues(t *testing.T) {
	files := map[string]string{
		"values.yaml": "replicas: 1\nservice: {port: 80}\n# tuned: {fast: true}\nextra: {}\npassed: {a: 1}\n",
		"templates/a.yaml": `apiVersion: v1
kind: ConfigMap
metadata: {name: a, annotations: {{ toJson .Values.passed }}}
data:
  password: {{ randAlphaNum 8 | quote }}
  time: {{ now | date "15:04:05.000000" | quote }}
  ca: {{ (genCA "x" 1).Cert | quote }}
  port: {{ .Values.service.port | quote }}
  indirect: {{ get .Values "byName" | quote }}
  word: {{ (dict "prot" 1).prot | quote }}
{{- if .Values.off }}
  off: {{ .Values.when.off }}
{{- end }}
{{- if .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}
  monitored: {{ get .Values "monitored" }}
{{- end }}
`,
		"templates/NOTES.txt":        `{{ get .Values "noted" }}`,
		"charts/db/Chart.yaml":       "apiVersion: v2\nname: db\nversion: 1.0.0\n",
		"charts/db/values.yaml":      "size: 1\n",
		"charts/db/templates/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: db-{{ .Values.size }}}\n",
	}
	c := withTemplates(t, files)
	out := mustTemplate(t, c, asRelease(t, `{
		replicas: 2, byName: x, replcias: 3, tuned: {fast: false}, extra: {a: 1}, passed: {b: 2}, service: {prot: 1}, when: {off: 1}, noted: x, monitored: x,
		global: {a: 1}, db: {siez: 2}, nothing: null}`, from("ConfigMap", "base", "", "fromBase: 1\nreplcias: 1\n"), from("Secret", "db", "inSecret", "x")))
	if out.Failure != nil {
		t.Fatal(*out.Failure)
	}
	var got []string
	for _, k := range out.UnusedValues {
		got = append(got, fmt.Sprintf("%s %s suggestion %q inline %t from %d", k.Chart, k.Path, k.Suggestion, k.Inline, k.From))
	}
	want := []string{
		`db db.siez suggestion "size" inline true from 0`,
		`app fromBase suggestion "" inline false from 1`,
		`app inSecret suggestion "" inline false from 2`,
		`app noted suggestion "" inline true from 0`,
		`app replcias suggestion "replicas" inline true from 0`,
		`app service.prot suggestion "port" inline true from 0`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("unused values (-want +got):\n%s", cmp.Diff(want, got))
	}
	r := asRelease(t, "{replcias: 1}")
	if r.UnusedValues = false; mustTemplate(t, c, r).UnusedValues != nil {
		t.Error("unused values that were not requested")
	}
}

func TestChart_UnusedValuesOfTemplatesWithoutStableOutput(t *testing.T) {
	c := withTemplates(t, map[string]string{"templates/a.yaml": `apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data:
{{- $d := dict }}{{ range $i := until 300 }}{{ $_ := set $d (toString $i) $i }}{{ end }}
{{- range $i := until 10 }}
  d{{ $i }}: {{ keys $d | join "," | quote }}
{{- end }}
`})
	if out := mustTemplate(t, c, asRelease(t, "{dead: 1}")); out.Failure != nil || out.UnusedValues != nil {
		t.Error(out.Failure, out.UnusedValues)
	}
}
