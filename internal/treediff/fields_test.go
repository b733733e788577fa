package treediff_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/treediff"
)

func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFields(t *testing.T) {
	for name, tc := range map[string]struct {
		before, after string
		secret        bool
		want          []string
	}{
		"equal":                             {before: "{a: 1, b: [1, {c: d}]}", after: "{b: [1, {c: d}], a: 1}"},
		"a field is changed":                {before: "{a: {b: 1}}", after: "{a: {b: 2}}", want: []string{"changed a.b 1 2"}},
		"fields are added and removed":      {before: "{a: 1}", after: "{b: {c: 2}}", want: []string{"removed a 1 <nil>", "added b <nil> map[c:2]"}},
		"another type":                      {before: "{a: '1'}", after: "{a: 1}", want: []string{"changed a 1 1"}},
		"items are matched by name":         {before: "{l: [{name: a, v: 1}, {name: b, v: 1}]}", after: "{l: [{name: b, v: 2}, {name: c}]}", want: []string{"removed l[name=a] map[name:a v:1] <nil>", "changed l[name=b].v 1 2", "added l[name=c] <nil> map[name:c]"}},
		"another order of items":            {before: "{l: [{name: a}, {name: b}]}", after: "{l: [{name: b}, {name: a}]}", want: []string{"moved l a, b b, a"}},
		"an item in the middle of a list":   {before: "{l: [a, b, c]}", after: "{l: [a, x, b, c]}", want: []string{"added l[1] <nil> x"}},
		"the end of a list":                 {before: "{l: [a, b]}", after: "{l: [a]}", want: []string{"removed l[1] b <nil>"}},
		"items without one name each":       {before: "{l: [{name: a, v: 1}, {name: a, v: 2}]}", after: "{l: [{name: a, v: 1}, {name: a, v: 3}]}", want: []string{"changed l[1].v 2 3"}},
		"values of a Secret":                {before: "{data: {a: hunter2, b: c}, type: x}", after: "{data: {a: hunter3, d: e}, type: z}", secret: true, want: []string{"changed data.a masked", "removed data.b masked", "added data.d masked", "changed type x z"}},
		"all values of a Secret":            {before: "{}", after: "{stringData: {a: hunter2}}", secret: true, want: []string{"added stringData masked"}},
		"what kubectl repeats of a Secret":  {before: "{metadata: {}}", after: "{metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: hunter2}}}", secret: true, want: []string{"added metadata.annotations masked"}},
		"encrypted values":                  {before: "{a: 'ENC[AES256_GCM,data:x]'}", after: "{a: 'ENC[AES256_GCM,data:y]'}", want: []string{"changed a masked"}},
		"an encrypted value becomes plain":  {before: "{a: 'ENC[AES256_GCM,data:x]'}", after: "{a: b}", want: []string{"changed a **SOPS** b"}},
		"texts of several lines, as hunks":  {before: "{a: \"1\\n2\\n3\\n\"}", after: "{a: \"1\\nx\\n3\\n\"}", want: []string{"changed a hunks -2 +x"}},
		"the same number in another format": {before: "{a: 1.0}", after: "{a: 1}"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range treediff.Fields(decode(t, tc.before), decode(t, tc.after), tc.secret) {
				text := fmt.Sprintf("%s %s %v %v", c.Change, c.Path, c.Before, c.After)
				switch {
				case c.Masked:
					text = fmt.Sprintf("%s %s masked", c.Change, c.Path)
					if strings.Contains(fmt.Sprint(c), "hunter") {
						t.Errorf("a secret is in the change: %v", c)
					}
				case c.Hunks != "":
					text = fmt.Sprintf("%s %s hunks", c.Change, c.Path)
					for line := range strings.Lines(c.Hunks) {
						if line[0] != ' ' && line[0] != '@' && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "+++") {
							text += " " + strings.TrimSpace(line)
						}
					}
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}
