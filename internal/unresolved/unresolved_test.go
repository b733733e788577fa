package unresolved_test

import (
	"fmt"
	"testing"

	"github.com/flux-admission/flux-admission/internal/unresolved"
)

const encrypted = "ENC[AES256_GCM,data:p673w==,iv:YY=,tag:UQ=,type:str]"

func TestString(t *testing.T) {
	for name, tc := range map[string]struct {
		text                          string
		encrypted, variable, template bool
	}{
		"an empty string":                          {text: ""},
		"plain text":                               {text: "text"},
		"a value of SOPS":                          {text: encrypted, encrypted: true},
		"a value of SOPS within text":              {text: "a " + encrypted},
		"another tool's encryption":                {text: "ENC[PKCS7,MIIBeQ]"},
		"the beginning of a value of SOPS":         {text: "ENC["},
		"a variable":                               {text: "${NAME}", variable: true},
		"a variable with a default":                {text: "host-${NAME:=x}.example.com", variable: true},
		"an escaped variable":                      {text: "$${NAME}", variable: true},
		"a variable without a closing brace":       {text: "${NAME"},
		"a closing brace before the variable":      {text: "} ${NAME"},
		"a shell variable without braces":          {text: "$NAME"},
		"a template expression":                    {text: "{{ .Values.name }}", template: true},
		"a single brace":                           {text: "{name}"},
		"a template expression and a variable":     {text: "{{ .name }}-${NAME}", variable: true, template: true},
		"a variable in a JSON text with its brace": {text: `{"a": "${NAME}"}`, variable: true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := unresolved.IsEncrypted(tc.text); got != tc.encrypted {
				t.Errorf("IsEncrypted(%q) = %t, want %t", tc.text, got, tc.encrypted)
			}
			if got := unresolved.HasVariable(tc.text); got != tc.variable {
				t.Errorf("HasVariable(%q) = %t, want %t", tc.text, got, tc.variable)
			}
			if got := unresolved.HasTemplate(tc.text); got != tc.template {
				t.Errorf("HasTemplate(%q) = %t, want %t", tc.text, got, tc.template)
			}
			if got, want := unresolved.String(tc.text), tc.encrypted || tc.variable; got != want {
				t.Errorf("String(%q) = %t, want %t", tc.text, got, want)
			}
		})
	}
}

func TestHasPlaceholder(t *testing.T) {
	for text, want := range map[string]bool{
		"tests.CRD_COUNT.example.com": true, "CLUSTER_NAME": true, "web-NODE_1": true,
		"": false, "Web": false, "WEB": false, "my_name": false, "A_b": false, "web.example.com": false,
	} {
		if got := unresolved.HasPlaceholder(text); got != want {
			t.Errorf("HasPlaceholder(%q) = %t, want %t", text, got, want)
		}
	}
}

func TestValue(t *testing.T) {
	for name, tc := range map[string]struct {
		value any
		want  bool
	}{
		"nothing":                         {nil, false},
		"a number":                        {int64(1), false},
		"a string":                        {"x", false},
		"a variable":                      {"${A}", true},
		"a map without any":               {map[string]any{"a": []any{"b", true}}, false},
		"a variable in a list in a map":   {map[string]any{"a": []any{"b", map[string]any{"c": "${D}"}}}, true},
		"a variable in a key":             {map[string]any{"${A}": "b"}, true},
		"an encrypted value in a map":     {map[string]any{"a": encrypted}, true},
		"a template expression in a list": {[]any{"{{ .a }}"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := unresolved.Value(tc.value); got != tc.want {
				t.Errorf("Value(%v) = %t, want %t", tc.value, got, tc.want)
			}
		})
	}
}

func TestIsEncryptedObject(t *testing.T) {
	for name, tc := range map[string]struct {
		object map[string]any
		want   bool
	}{
		"an object without metadata of SOPS": {map[string]any{"kind": "Secret"}, false},
		"an object of SOPS":                  {map[string]any{"kind": "Secret", "sops": map[string]any{"mac": encrypted}}, true},
		"metadata without a code":            {map[string]any{"sops": map[string]any{"age": nil}}, false},
		"a field sops that is no map":        {map[string]any{"sops": "3.9.0"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := unresolved.IsEncryptedObject(tc.object); got != tc.want {
				t.Errorf("IsEncryptedObject(%v) = %t, want %t", tc.object, got, tc.want)
			}
		})
	}
}

func ExampleString() {
	fmt.Println(unresolved.String("${DOMAIN}"), unresolved.String("example.com"))
	// Output: true false
}
