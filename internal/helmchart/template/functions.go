package template

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"text/template"
	"time"
)

// maxItems bounds the lists that until and untilStep create.
const maxItems = 1_000_000

// authorError is the error of a chart's author, reported with required or fail.
type authorError struct{ text string }

func (e *authorError) Error() string { return e.text }

// errTooLarge is the error of a function whose result would be too large.
var errTooLarge = errors.New("the result of a template function is too large")

// certificate has the fields of a certificate that sprig generates.
type certificate struct{ Cert, Key string }

// functions returns replacements of those of Helm's functions that look into a cluster, have random results, create
// large results from small arguments, or whose errors Helm shortens too much. It sets queried when a template looks
// into the cluster.
func functions(now time.Time, queried *atomic.Bool) template.FuncMap {
	repeated := func(text string) func(int) (string, error) {
		return func(n int) (string, error) {
			if n > MaxBytes {
				return "", errTooLarge
			}
			return strings.Repeat(text, max(n, 0)), nil
		}
	}
	pem := func(kind string) string {
		return fmt.Sprintf("-----BEGIN %s-----\nbm90IGEga2V5\n-----END %s-----\n", kind, kind)
	}
	cert := func(...any) (certificate, error) {
		return certificate{Cert: pem("CERTIFICATE"), Key: pem("RSA PRIVATE KEY")}, nil
	}
	until := func(start, stop, step int) ([]int, error) {
		v := []int{}
		if step == 0 || (stop > start) != (step > 0) {
			return v, nil
		}
		if (stop-start)/step > maxItems {
			return nil, errTooLarge
		}
		for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
			v = append(v, i)
		}
		return v, nil
	}
	return template.FuncMap{
		// Without a cluster Helm finds nothing.
		"lookup": func(string, string, string, string) (map[string]any, error) {
			queried.Store(true)
			return map[string]any{}, nil
		},
		"required": func(message string, v any) (any, error) {
			if s, isText := v.(string); v == nil || isText && s == "" {
				return v, &authorError{message}
			}
			return v, nil
		},
		"fail": func(message string) (string, error) { return "", &authorError{message} },

		"now":                      func() time.Time { return now },
		"randAlphaNum":             repeated("x"),
		"randAlpha":                repeated("x"),
		"randAscii":                repeated("x"),
		"randNumeric":              repeated("1"),
		"randBytes":                repeated("x"),
		"randInt":                  func(from, _ int) int { return from },
		"uuidv4":                   func() string { return "00000000-0000-4000-8000-000000000000" },
		"shuffle":                  func(s string) string { return s },
		"bcrypt":                   func(string) string { return "$2a$10$" + strings.Repeat("x", 53) },
		"htpasswd":                 func(user, _ string) string { return user + ":$2a$10$" + strings.Repeat("x", 53) },
		"encryptAES":               func(string, string) string { return "eA==" },
		"genPrivateKey":            func(string) string { return pem("PRIVATE KEY") },
		"genCA":                    cert,
		"genCAWithKey":             cert,
		"genSelfSignedCert":        cert,
		"genSelfSignedCertWithKey": cert,
		"genSignedCert":            cert,
		"genSignedCertWithKey":     cert,
		"buildCustomCert":          cert,

		"repeat": func(n int, s string) (string, error) {
			if n > 0 && len(s) > MaxBytes/n {
				return "", errTooLarge
			}
			return strings.Repeat(s, max(n, 0)), nil
		},
		"until": func(n int) ([]int, error) {
			if n < 0 {
				return until(0, n, -1)
			}
			return until(0, n, 1)
		},
		"untilStep": until,
	}
}
