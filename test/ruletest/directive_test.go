package ruletest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flux-admission/flux-admission/test/ruletest"
)

func TestDirectives(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string // WORD FILE:LINE RULE /MESSAGE/ OBJECT COLUMN RELATED
		err  string
	}{
		"a finding":                          {"a: 1\nb: 2 # want KS001 \"x\"\n", []string{"want 2 KS001 /x/"}, ""},
		"two findings on a line":             {`a: 1 # want KS001 "x" KS002 "a\"b"`, []string{"want 1 KS001 /x/", `want 1 KS002 /a"b/`}, ""},
		"a finding of the stored object":     {`a: 1 # was KS001 "x"`, []string{"was 1 KS001 /x/"}, ""},
		"a finding with everything":          {`a: 1 # want KS001 "x" object="Kustomization apps/web" column=3 related=a.yaml:1:2`, []string{"want 1 KS001 /x/ Kustomization apps/web 3 a.yaml:1:2"}, ""},
		"a finding with any message":         {`a: 1 # suppressed PG001`, []string{"suppressed 1 PG001"}, ""},
		"another comment":                    {"a: 1 # what KS001 wants", nil, ""},
		"a message without its end":          {`a: 1 # want KS001 "x`, nil, "line 1"},
		"a regular expression that is wrong": {`a: 1 # want KS001 "("`, nil, "line 1"},
		"a key that does not exist":          {`a: 1 # want KS001 row=3`, nil, `unknown key "row"`},
		"a second message":                   {`a: 1 # want KS001 "x" "y"`, nil, "does not follow a rule"},
		"something else":                     {`a: 1 # want KS001 x`, nil, `cannot parse "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := ruletest.Directives([]byte(tc.text))
			if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			var got []string
			for _, d := range list {
				got = append(got, d.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("directives (-want +got):\n%s", diff)
			}
		})
	}
	header, err := ruletest.HeaderDirectives("A title.\nwant apps/a.yaml:4 FI002 \"tab\" column=1\n")
	if err != nil || len(header) != 1 || header[0].String() != "want apps/a.yaml:4 FI002 /tab/ 1" {
		t.Errorf("directives %v, %v", header, err)
	}
}
