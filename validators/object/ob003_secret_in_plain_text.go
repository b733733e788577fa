package object

import (
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
)

// SecretInPlainText is the rule secret-in-plain-text.
//
// Base64 is no encryption. Values that hold a variable or a template, or are empty or encrypted, are not reported, nor
// are keys whose name is that of an address, a name or a setting. No value is printed. A Secret is reported once, at the first of its keys.
var SecretInPlainText = &validators.Rule{
	Meta: validators.Meta{
		ID:       "OB003",
		Name:     "secret-in-plain-text",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{{Kind: "Secret"}}},
		Stages:   validators.StageOffline,
		Severity: validators.SeverityInfo,
		Defaults: validators.Defaults{Offline: v1alpha1.ActionAudit},
		Doc: validators.Doc{
			Title: "Secret is in Git in plain text",
			Why: "Everyone who can read the repository, its clones and its history can read the value. Base64 does " +
				"not protect it.",
			Fix: "Encrypt the file with SOPS or as a SealedSecret, or let an ExternalSecret read the value from a " +
				"vault. Replace the value: it stays in the history.",
			Since: "v0.1.0",
		},
	},
	Check: checkPlainText,
}

func checkPlainText(_ context.Context, p *validators.Pass) error {
	if p.Provenance == nil || unresolved.IsEncryptedObject(p.Object.Object) ||
		p.Object.Object["type"] == "kubernetes.io/service-account-token" {
		return nil
	}
	for _, field := range []string{"stringData", "data"} {
		values, _ := p.Object.Object[field].(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(values)) {
			at := validators.NewPath(field, key)
			written, _ := values[key].(string)
			if isNoSecret(key) || slices.ContainsFunc(p.Unresolved, func(u validators.Path) bool { return at.HasPrefix(u) }) ||
				!isPlain(written, field == "data") || p.Provenance.Written != nil && unresolved.String(p.Provenance.Written(at)) {
				continue
			}
			f := p.Report(at, nil, "the value of %s is in Git in plain text", key)
			f.Key = field
			return nil // one finding for each Secret
		}
	}
	return nil
}

// isNoSecret reports whether the name of a key is that of an address, a name or a setting.
func isNoSecret(key string) bool {
	if strings.HasPrefix(key, "sops_") {
		return true // metadata of an encrypted dotenv file
	}
	words := strings.FieldsFunc(strings.ToLower(key), func(r rune) bool { return r == '_' || r == '-' || r == '.' })
	return len(words) > 0 && slices.Contains([]string{
		"host", "hostname", "port", "user", "username", "login", "email", "name", "dbname", "database", "db", "schema", "region", "endpoint",
		"bucket", "server", "type", "project", "domain", "namespace", "enabled", "version", "sslmode", "insecure", "id",
		// Files with values and settings, most of which are no secret.
		"yaml", "yml", "conf", "config", "toml", "ini", "properties",
	}, words[len(words)-1])
}

// isPlain reports whether a value is one that everybody can read.
func isPlain(text string, isBase64 bool) bool {
	if isBase64 {
		decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		if err != nil {
			return false // another rule reports it
		}
		text = string(decoded)
	}
	text = strings.TrimSpace(text)
	if _, err := strconv.ParseBool(text); err == nil {
		return false
	}
	encrypted := strings.Contains(text, "ENC[AES256_GCM,") || strings.Contains(text, "-----BEGIN AGE ENCRYPTED FILE-----")
	return text != "" && !encrypted && !unresolved.String(text) && !unresolved.HasTemplate(text)
}
