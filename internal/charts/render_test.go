package charts_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/charts"
	"github.com/flux-admission/flux-admission/internal/charts/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// renderable is the chart app of the files, with its templates.
func renderable(t testing.TB, files map[string]string) *charts.Chart {
	t.Helper()
	limits := archive.DefaultLimits()
	limits.Whole = true
	ch, err := archive.Read(bytes.NewReader(chartArchive(t, "app", "1.0.0", files)), limits)
	if err != nil {
		t.Fatal(err)
	}
	return charts.NewRenderable(ch, nil)
}

func asRelease(t testing.TB, inline string, from ...validators.ValuesSource) validators.Release {
	t.Helper()
	return validators.Release{Name: "web", Namespace: "apps", DeadKeys: true, Values: validators.Values{Namespace: "apps", From: from, Inline: object(t, inline).Object}}
}

func mustRender(t testing.TB, c *charts.Chart, r validators.Release) *validators.Rendering {
	t.Helper()
	out, presence, err := c.Render(t.Context(), r)
	if presence != validators.Present || err != nil {
		t.Fatalf("the rendering is %s: %v", presence, err)
	}
	return out
}

func listed(out *validators.Rendering) []string {
	var got []string
	for _, o := range out.Objects {
		got = append(got, fmt.Sprintf("%s %s/%s %s:%d", o.Object.GetKind(), o.Object.GetNamespace(), o.Object.GetName(), o.Template, o.Line))
	}
	return got
}

func TestRenderedObjects(t *testing.T) {
	c := renderable(t, map[string]string{
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
	out := mustRender(t, c, asRelease(t, "{port: 1000000, db: {size: 3}}"))
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
		t.Errorf("rendered\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
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
	if got := listed(mustRender(t, c, r))[0]; !strings.HasPrefix(got, "ConfigMap /db-1") {
		t.Error(got)
	}
}
