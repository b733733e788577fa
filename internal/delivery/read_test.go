package delivery_test

import (
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/delivery"
)

func TestRead(t *testing.T) {
	const configMap = `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "generation": 2}}`
	cases := map[string]struct {
		input string
		want  int
		err   string
	}{
		"documents":          {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n---\n# nothing\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\n", 2, ""},
		"a list in YAML":     {"apiVersion: v1\nkind: List\nitems:\n- " + configMap + "\n- " + configMap + "\n", 2, ""},
		"a list in JSON":     {`{"apiVersion": "v1", "kind": "List", "items": [` + configMap + `]}`, 1, ""},
		"a typed list":       {`{"apiVersion": "v1", "kind": "ConfigMapList", "items": [` + configMap + `]}`, 1, ""},
		"an empty list":      {`{"apiVersion": "v1", "kind": "List", "items": []}`, 0, ""},
		"JSON after JSON":    {configMap + "\n" + configMap, 2, ""},
		"nothing":            {"", 0, ""},
		"no kind":            {"a: b\n", 0, "document 1: it is not a Kubernetes object"},
		"no YAML":            {"apiVersion: v1\nkind: [", 0, "document 1: "},
		"a broken document":  {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n\t- x", 0, "document 2: "},
		"an item of no kind": {`{"apiVersion": "v1", "kind": "List", "items": [{"a": "b"}]}`, 0, "document 1: "},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			objects, err := delivery.Read(strings.NewReader(c.input))
			if c.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || len(objects) != c.want {
				t.Fatalf("%d objects, error %v; want %d", len(objects), err, c.want)
			}
		})
	}
}
