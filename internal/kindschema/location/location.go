// Package location finds JSON schemas of kinds in directories and at URLs, in the form that kubeconform's
// -schema-location takes, so that catalogs of such schemas can be used as they are.
package location

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"text/template"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
)

// Default is the location of the built-in schemas, as in kubeconform.
const Default = "default"

// maxBytes limits one schema, in bytes.
const maxBytes = 8 << 20

// standard is what kubeconform appends to a location that names no file.
const standard = "/{{ .NormalizedKubernetesVersion }}-standalone{{ .StrictSuffix }}/{{ .ResourceKind }}{{ .KindSuffix }}.json"

// Location is a directory or URL with schemas.
type Location struct {
	text     string
	template *template.Template
	client   *fetch.Client
}

// Parse returns the location of a text: a template of the path or http(s) URL of a schema with the variables
// {{.Group}}, {{.ResourceKind}}, {{.ResourceAPIVersion}}, {{.KindSuffix}}, {{.StrictSuffix}} and
// {{.NormalizedKubernetesVersion}}, or a directory or URL to which kubeconform's own layout is appended. It returns nil
// for Default.
func Parse(text string) (*Location, error) {
	if text == Default {
		return nil, nil //nolint:nilnil // the built-in schemas need no location
	}
	form := text
	if !strings.HasSuffix(form, "json") {
		form = strings.TrimSuffix(form, "/") + standard
	}
	parsed, err := template.New("location").Option("missingkey=error").Parse(form)
	if err != nil {
		return nil, fmt.Errorf("reading the template %q: %w", text, err)
	}
	l := &Location{text: text, template: parsed}
	sample, err := l.path(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Example"})
	if err != nil {
		return nil, err
	}
	if isURL(sample) {
		// The location is the user's own, and so is a server on this machine.
		if l.client, err = fetch.NewClient(sample, fetch.Credentials{}, true); err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		return l, nil
	}
	dir, _, _ := strings.Cut(form, "{{")
	if i := strings.LastIndex(dir, "/"); i > 0 {
		dir = dir[:i]
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, fmt.Errorf("%s: there is no directory %s", text, dir)
		}
	}
	return l, nil
}

// Close releases the connections of the location.
func (l *Location) Close() {
	if l.client != nil {
		l.client.Close()
	}
}

func isURL(text string) bool {
	return strings.HasPrefix(text, "https://") || strings.HasPrefix(text, "http://")
}

// path returns the path or URL of the schema of a version of a kind. The variables are those of kubeconform
// (pkg/registry/registry.go: schemaPath).
func (l *Location) path(gvk schema.GroupVersionKind) (string, error) {
	label, _, _ := strings.Cut(gvk.Group, ".")
	var b strings.Builder
	err := l.template.Execute(&b, map[string]string{
		"Group": gvk.Group, "ResourceKind": strings.ToLower(gvk.Kind), "ResourceAPIVersion": gvk.Version,
		"KindSuffix":   "-" + strings.ToLower(label) + "-" + strings.ToLower(gvk.Version),
		"StrictSuffix": "", "NormalizedKubernetesVersion": "master",
	})
	if err != nil {
		return "", fmt.Errorf("reading the template %q: %w", l.text, err)
	}
	return b.String(), nil
}

// Schema returns the JSON schema of a version of a kind and where it is; nil if the location has none.
func (l *Location) Schema(ctx context.Context, gvk schema.GroupVersionKind) (content map[string]any, origin string, err error) {
	at, err := l.path(gvk)
	if err != nil {
		return nil, "", err
	}
	data, err := l.read(ctx, at)
	if err != nil || data == nil {
		return nil, at, err
	}
	if err := json.Unmarshal(data, &content); err != nil {
		return nil, at, fmt.Errorf("%s is no JSON schema: %w", at, err)
	}
	return content, at, nil
}

// read returns nil if there is no such file.
func (l *Location) read(ctx context.Context, at string) ([]byte, error) {
	if l.client != nil {
		data, err := l.client.Get(ctx, at, maxBytes)
		if status, ok := errors.AsType[*fetch.StatusError](err); ok && status.Code == http.StatusNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("fetching a schema: %w", err)
		}
		return data, nil
	}
	info, err := os.Stat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading a schema: %w", err)
	case !info.Mode().IsRegular() || info.Size() > maxBytes:
		return nil, fmt.Errorf("%s is no file, or larger than %d bytes", at, maxBytes)
	}
	data, err := os.ReadFile(at)
	if err != nil {
		return nil, fmt.Errorf("reading a schema: %w", err)
	}
	return data, nil
}
