package webhook

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	sigsjson "sigs.k8s.io/json"
)

// reviewOf returns the text of an update.
func reviewOf(object, old string) []byte {
	return fmt.Appendf(nil, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u","operation":"UPDATE",`+
		`"object":%s,"oldObject":%s,"dryRun":true}}`, object, old)
}

// decodeTwice decodes a review with and without sharing, fails if the results differ, and returns the one with sharing.
func decodeTwice(t *testing.T, body []byte) request {
	t.Helper()
	var shared, plain request
	_, _, both := measure(body) // blanks the managed fields
	if err := decode(body, &plain); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	text := string(body)
	body, paths := withoutEqual(body, both)
	if err := decode(body, &shared); err != nil {
		t.Fatalf("%v: %s\nwithout equal parts %s", err, text, body)
	}
	if err := share(&shared, paths); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if !reflect.DeepEqual(plain, shared) {
		t.Fatalf("%s\nwithout equal parts %s\n(-plain +shared)\n%s", text, body, cmp.Diff(plain, shared, cmp.AllowUnexported(request{})))
	}
	return shared
}

func TestShare(t *testing.T) {
	long := strings.Repeat("x", minPart)
	for name, tc := range map[string]struct {
		object, old string
		// path leads to the map that both objects share; empty for none.
		path []string
	}{
		"a value of a release":    {`{"spec":{"values":{"a":{"b":"` + long + `"},"c":1}}}`, `{"spec":{"values":{"a":{"b":"` + long + `"},"c":2}}}`, []string{"spec", "values", "a"}},
		"all values of a release": {`{"spec":{"values":{"a":{"b":"` + long + `"}},"c":1}}`, `{"spec":{"values":{"a":{"b":"` + long + `"}},"c":2}}`, []string{"spec", "values"}},
		"a field of the spec":     {`{"spec":{"a":{"b":"` + long + `"},"c":1}}`, `{"spec":{"a":{"b":"` + long + `"},"c":2}}`, []string{"spec", "a"}},
		"the status":              {`{"status":{"b":"` + long + `"},"c":1}`, `{"status":{"b":"` + long + `"},"c":2}`, []string{"status"}},
		"another order of keys":   {`{"spec":{"values":{"a":{"b":"` + long + `"},"c":1}}}`, `{"spec":{"values":{"c":2,"a":{"b":"` + long + `"}}}}`, []string{"spec", "values", "a"}},
		"another path":            {`{"spec":{"values":{"a":{"b":"` + long + `"},"c":1}}}`, `{"spec":{"values":{"d":{"b":"` + long + `"}}}}`, nil},
		"another value":           {`{"spec":{"values":{"a":{"b":"` + long + `"},"c":1}}}`, `{"spec":{"values":{"a":{"c":"` + long + `"}}}}`, nil},
		"an escaped key":          {`{"spec":{"values":{"\u0061":{"b":"` + long + `"},"c":1}}}`, `{"spec":{"values":{"\u0061":{"b":"` + long + `"}}}}`, nil},
		"a key that is not UTF-8": {`{"spec":{"values":{"` + "\xff" + `":{"b":"` + long + `"},"c":1}}}`, `{"spec":{"values":{"` + "\xff" + `":{"b":"` + long + `"}}}}`, nil},
		"items of a list":         {`{"spec":{"values":[{"b":"` + long + `"},{"c":1}]}}`, `{"spec":{"values":[{"b":"` + long + `"},{"c":2}]}}`, nil},
		"an empty key":            {`{"spec":{"":{"b":"` + long + `"},"c":1}}`, `{"spec":{"":{"b":"` + long + `"},"c":2}}`, []string{"spec", ""}},
		"managed fields": {
			`{"metadata":{"managedFields":[{"b":"` + long + `"}],"c":1}}`, `{"metadata":{"managedFields":[{"b":"` + long + `"}],"c":2}}`, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := decodeTwice(t, reviewOf(tc.object, tc.old))
			at := func(v any) any {
				for _, k := range tc.path {
					v = v.(map[string]any)[k]
				}
				return v
			}
			if tc.path == nil {
				return
			}
			if reflect.ValueOf(at(req.Object)).Pointer() != reflect.ValueOf(at(req.OldObject)).Pointer() {
				t.Error("the part was decoded twice")
			}
		})
	}
}

func TestShare_GeneratedReviews(t *testing.T) {
	shared := 0
	for seed := range uint64(3000) {
		g := rand.New(rand.NewPCG(seed, 1))
		var value func(depth int) any
		value = func(depth int) any {
			if depth == 0 {
				return []any{nil, true, 1, 1.5, strings.Repeat("\"{x}", g.IntN(30))}[g.IntN(5)]
			}
			if g.IntN(4) == 0 {
				list := []any{}
				for range g.IntN(4) {
					list = append(list, value(depth-1))
				}
				return list
			}
			m := map[string]any{}
			for range g.IntN(5) {
				m[[]string{"spec", "values", "metadata", "managedFields", "a", "b\n", "", "status"}[g.IntN(8)]] = value(depth - 1 - g.IntN(2)*g.IntN(depth))
			}
			return m
		}
		var change func(v any) any
		change = func(v any) any {
			m, ok := v.(map[string]any)
			if !ok || g.IntN(6) == 0 {
				return value(g.IntN(3))
			}
			out := map[string]any{}
			for k, c := range m {
				switch g.IntN(6) {
				case 0:
					c = change(c)
				case 1:
					continue
				}
				out[k] = c
			}
			return out
		}
		object := map[string]any{"spec": map[string]any{"values": value(4), "a": value(3)}, "metadata": value(3), "status": value(2)}
		texts := make([]string, 0, 2)
		for _, v := range []any{object, change(object)} {
			data, err := json.Marshal(v)
			if g.IntN(4) == 0 {
				data, err = json.MarshalIndent(v, "", " ")
			}
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(data))
		}
		body := reviewOf(texts[0], texts[1])
		_, _, both := measure(append([]byte(nil), body...))
		if _, paths := withoutEqual(append([]byte(nil), body...), both); len(paths) > 0 {
			shared++
		}
		decodeTwice(t, body)
	}
	if shared < 500 {
		t.Errorf("%d reviews with shared parts are too few", shared)
	}
}

// FuzzDecodeFast compares the fast decoder with the library: what it decodes is what the library decodes.
func FuzzDecodeFast(f *testing.F) {
	for _, text := range []string{
		`{"a":[1,-2.5e3,true,null,"x"],"b":{"c":"\u00e9\ud800\n"}}`, `[0,-0,01,1e400,9223372036854775808,123456789012345678]`, `{"a":1,"a":2}`,
		"\"\xff\"", "\"\t\"", `"\q"`, ` 1 `, `1 1`, `{"a":1,}`, `[1,]`, `[`, `{"a"`, `{"":{}}`, `-`, `"a\"b\\"`, `tru`, strings.Repeat("[", maxFast+1) + strings.Repeat("]", maxFast+1),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := decodeFast(text)
		var want any
		err := sigsjson.UnmarshalCaseSensitivePreserveInts([]byte(text), &want)
		if ok && (err != nil || !reflect.DeepEqual(got, want)) {
			t.Fatalf("%q: %#v, want %#v, %v", text, got, want, err)
		}
	})
}

// TestDecode_Fields has fields of other types than an AdmissionReview has.
func TestDecode_Fields(t *testing.T) {
	const good = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u","kind":{"group":"g","version":"v","kind":"K"},` +
		`"name":"n","namespace":"ns","operation":"UPDATE","userInfo":{"username":"me","groups":["a"]},"object":{"a":1},"oldObject":null,"dryRun":true}}`
	for _, tc := range []struct{ from, to string }{
		{"", ""}, {`"uid":"u"`, `"uid":1`}, {`"dryRun":true`, `"dryRun":"true"`}, {`"dryRun":true`, `"dryRun":null`}, {`{"username":"me","groups":["a"]}`, `[]`},
		{`"name":"n"`, `"name":"n","name":"m"`}, {`"K"`, `null`}, {`AdmissionReview`, `Other`}, {`"object":{"a":1}`, `"object":[1.5]`}, {`"name"`, `"Name"`},
		{`"request":{`, `"request":{},"request":{`}, {`true}}`, `true}} x`}, {`{"kind":"Adm`, `[{"kind":"Adm`},
	} {
		body := strings.Replace(good, tc.from, tc.to, 1)
		var got, want request
		err := decode([]byte(body), &got)
		r := review{Request: &want}
		wantErr := sigsjson.UnmarshalCaseSensitivePreserveInts([]byte(body), &r)
		if wantErr == nil {
			wantErr = r.check()
		}
		if (err != nil) != (wantErr != nil) || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n%+v, %v\nwant %+v, %v", body, got, err, want, wantErr)
		}
	}
}
