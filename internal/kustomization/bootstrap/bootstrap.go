// Package bootstrap finds what a tree installs in a new cluster before Flux applies anything: the releases of its
// helmfiles, the charts and definitions that its scripts name, and the objects that a person applies.
package bootstrap

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// maxScriptBytes bounds the scripts that are read, in bytes each: what is longer is a program.
const maxScriptBytes = 256 << 10

var (
	// chartLine matches the lines of a helmfile that yaml does not parse, because it is a template.
	chartLine = regexp.MustCompile(`(?m)^[ \t-]*(?:name|chart):[ \t]*["']?([^"'\s#]+)`)
	// helmLine matches the lines of a script that install a chart or print its definitions.
	helmLine = regexp.MustCompile(`\bhelm\b.*\b(?:install|upgrade|template|pull|show)\b`)
	// definitionLine matches the lines of a script that apply manifests or name definitions.
	definitionLine = regexp.MustCompile(`(?i)\bapply\b|\bcreate\b|crd|https?://`)
	word           = regexp.MustCompile(`[A-Za-z0-9.-]+`)
)

// Found is what a tree installs before Flux applies anything.
type Found struct {
	// Installs are charts and API groups.
	Installs *validators.Bootstrap
	// Objects are those of the files in a directory "bootstrap", and of other files that were asked for. An object without
	// a namespace may be in any.
	Objects []*unstructured.Unstructured
}

// Find returns what the helmfiles, scripts and bootstrap manifests of a tree install. Files that a source's ignore rules
// leave out count: they are not for Flux. Those that Flux applies are left out: applied reports them. Also are the names
// of further files whose objects somebody applies.
func Find(t *sourcetree.Tree, applied func(*sourcetree.File) bool, also ...string) *Found {
	f := finder{
		found:  &Found{Installs: &validators.Bootstrap{Charts: map[string]bool{}, Groups: map[string]bool{}}},
		beside: map[string]*sourcetree.File{},
	}
	files := t.Files()
	for _, file := range files {
		if path.Base(file.Path()) == kustomizationFile {
			f.beside[path.Dir(file.Path())] = file
		}
	}
	for _, file := range files {
		p := file.Path()
		bootstrap := slices.Contains(strings.Split(path.Dir(p), "/"), "bootstrap")
		switch {
		case applied(file):
		case isHelmfile(p):
			f.helmfile(file)
		case isScript(p):
			f.script(file)
		case bootstrap && path.Base(p) == kustomizationFile:
			f.script(file)
		case slices.Contains(also, file.Name()) || bootstrap && isManifest(p):
			f.manifest(file)
		}
	}
	return f.found
}

const kustomizationFile = "kustomization.yaml"

type finder struct {
	found *Found
	// beside are the kustomization files, by their directory.
	beside map[string]*sourcetree.File
}

// templateExtensions are those of templates that print manifests.
var templateExtensions = []string{".j2", ".tpl", ".tmpl", ".gotmpl"}

// isManifest reports whether a file may have Kubernetes objects: resources.yaml, resources.yaml.j2.
func isManifest(p string) bool {
	if slices.Contains(templateExtensions, path.Ext(p)) {
		p = strings.TrimSuffix(p, path.Ext(p))
	}
	return sourcetree.IsYAML(p)
}

// manifest adds the objects of a file, in the namespace of the kustomization.yaml beside it. A file that is no YAML, as
// many templates are, has none.
func (f finder) manifest(file *sourcetree.File) {
	parsed := file.Parse()
	if len(parsed.Problems) > 0 {
		return
	}
	namespace := ""
	if beside := f.beside[path.Dir(file.Path())]; beside != nil {
		if doc := beside.Parse().First(); doc != nil {
			namespace = yamlposition.Scalar(doc, "namespace")
			f.namespace(namespace)
		}
	}
	for i := range parsed.Documents {
		o := file.Object(i)
		if o == nil || o.GetName() == "" || strings.Contains(o.GetName()+o.GetNamespace(), "{{") {
			continue
		}
		if namespace != "" && o.GetKind() != "Namespace" {
			o.SetNamespace(namespace)
		}
		f.found.Objects = append(f.found.Objects, o)
	}
}

// namespace adds a namespace that somebody creates.
func (f finder) namespace(name string) {
	if name == "" || strings.Contains(name, "{{") {
		return
	}
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
	o.SetName(name)
	f.found.Objects = append(f.found.Objects, o)
}

func isHelmfile(p string) bool {
	return strings.Contains(strings.ToLower(p), "helmfile") && slices.Contains([]string{".yaml", ".yml", ".gotmpl"}, path.Ext(p))
}

func isScript(p string) bool {
	base := strings.ToLower(path.Base(p))
	switch path.Ext(base) {
	case ".sh", ".bash", ".zsh", ".fish", ".just", ".mk", ".ps1", ".py":
		return true
	case ".yaml", ".yml":
		return strings.HasPrefix(base, "taskfile.") || strings.Contains(strings.ToLower(path.Dir(p)), "taskfiles")
	}
	return base == "makefile" || base == "justfile" || base == ".justfile"
}

// helmfile adds the releases of a helmfile: https://helmfile.readthedocs.io, "releases".
func (f finder) helmfile(file *sourcetree.File) {
	data, err := file.Read()
	if err != nil {
		return
	}
	parsed := file.Parse()
	found := false
	for _, doc := range parsed.Documents {
		releases := yamlposition.Child(doc, "releases")
		if releases == nil || releases.Kind != yaml.SequenceNode {
			continue
		}
		found = true
		for _, release := range releases.Content {
			for _, field := range []string{"name", "chart"} {
				if n := yamlposition.Child(release, field); n != nil && n.Kind == yaml.ScalarNode {
					f.chart(n.Value)
				}
			}
			// Helm creates the namespace: helmDefaults.createNamespace is true by default.
			f.namespace(yamlposition.Scalar(release, "namespace"))
		}
	}
	if found || !strings.Contains(string(data), "releases:") {
		return
	}
	for _, match := range chartLine.FindAllStringSubmatch(string(data), -1) {
		f.chart(match[1])
	}
}

// script adds the charts and the API groups that the lines of a script install.
func (f finder) script(file *sourcetree.File) {
	data, err := file.Read()
	if err != nil || len(data) > maxScriptBytes {
		return
	}
	for line := range strings.Lines(string(data)) {
		helm := helmLine.MatchString(line)
		if !helm && !definitionLine.MatchString(line) {
			continue
		}
		for _, w := range word.FindAllString(line, -1) {
			if helm || strings.Contains(line, "://") {
				f.found.Installs.Charts[w] = true
			}
			// A definition is named <plural>.<group>, its file often <group>_<plural>.yaml.
			for group := w; group != ""; _, group, _ = strings.Cut(group, ".") {
				if strings.Contains(group, ".") {
					f.found.Installs.Groups[group] = true
				}
			}
		}
	}
}

func (f finder) chart(ref string) { f.found.Installs.Charts[path.Base(ref)] = true }
