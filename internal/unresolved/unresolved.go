// Package unresolved detects values in manifests that are only known later: values that SOPS encrypted, variables of
// Flux's post-build substitution, and template expressions.
//
// It is the only place that decides this question. It works on plain data, so that rules may use it.
package unresolved

import (
	"regexp"
	"slices"
	"strings"
)

// encryptedPrefix is how SOPS writes a value in YAML and JSON: its only cipher is AES-256 in GCM mode. See
// https://github.com/getsops/sops/blob/main/aes/cipher.go.
const encryptedPrefix = "ENC[AES256_GCM,"

// IsEncrypted reports whether a string is a value that SOPS encrypted.
func IsEncrypted(s string) bool { return strings.HasPrefix(s, encryptedPrefix) }

// HasVariable reports whether a string contains a variable of Flux's post-build substitution, such as ${NAME} or
// ${NAME:=default}. An escaped one ($${NAME}) counts as well: whether it was escaped is only known to the substitution.
func HasVariable(s string) bool {
	_, rest, ok := strings.Cut(s, "${")
	return ok && strings.Contains(rest, "}")
}

// HasTemplate reports whether a string contains an expression of Go's templates, which a chart or a controller
// executes.
func HasTemplate(s string) bool { return strings.Contains(s, "{{") }

// placeholder matches a name in capitals with an underscore, which no name of an object can have, such as CLUSTER_NAME.
var placeholder = regexp.MustCompile(`(?:^|[^A-Za-z0-9_])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?:[^A-Za-z0-9_]|$)`)

// HasPlaceholder reports whether a string contains a name in capitals that a script may replace, such as CLUSTER_NAME.
// It is a guess: such a text may also be meant as it is.
func HasPlaceholder(s string) bool { return placeholder.MatchString(s) }

// String reports whether a string is encrypted or contains a variable.
func String(s string) bool { return IsEncrypted(s) || HasVariable(s) }

// Value reports whether a decoded value is a string that is encrypted or contains a variable, or a map or list with
// such a string or key.
func Value(v any) bool {
	switch v := v.(type) {
	case string:
		return String(v)
	case map[string]any:
		for k, c := range v {
			if String(k) || Value(c) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, Value)
	}
	return false
}

// IsEncryptedObject reports whether SOPS encrypted values of an object: it then has metadata with a message
// authentication code in the field sops.
func IsEncryptedObject(object map[string]any) bool {
	sops, _ := object["sops"].(map[string]any)
	return sops["mac"] != nil
}
