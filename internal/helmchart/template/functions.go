package template

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"text/template"
	"time"
)

// maxItems bounds the lists that until and its like make at once.
const maxItems = 1_000_000

// complaint is what a chart's author says with required or fail.
type complaint struct{ text string }

func (c *complaint) Error() string { return c.text }

// errTooLarge is the error of a function that would make too much at once.
var errTooLarge = errors.New("more than is rendered here")

// certificate has the fields of a certificate that sprig makes.
type certificate struct{ Cert, Key string }

// functions take the place of some of Helm's: those that ask a cluster, whose results are random, that make much of little, and whose errors
// Helm reduces to less than is to be reported. asked is set when a template looks into the cluster.
func functions(now time.Time, asked *atomic.Bool) template.FuncMap {
	text := func(what string) func(int) (string, error) {
		return func(n int) (string, error) {
			if n > MaxBytes {
				return "", errTooLarge
			}
			return strings.Repeat(what, max(n, 0)), nil
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
			asked.Store(true)
			return map[string]any{}, nil
		},
		"required": func(message string, v any) (any, error) {
			if s, isText := v.(string); v == nil || isText && s == "" {
				return v, &complaint{message}
			}
			return v, nil
		},
		"fail": func(message string) (string, error) { return "", &complaint{message} },

		"now":                      func() time.Time { return now },
		"randAlphaNum":             text("x"),
		"randAlpha":                text("x"),
		"randAscii":                text("x"),
		"randNumeric":              text("1"),
		"randBytes":                text("x"),
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
