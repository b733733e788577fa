// Package bootstrap finds what a tree installs in a new cluster before Flux applies anything: the releases of its
// helmfiles, and the charts and definitions that its scripts name.
package bootstrap

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

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

// Find returns what the helmfiles and scripts of a tree install. Files that a source's ignore rules leave out count:
// they are not for Flux.
func Find(t *sourcetree.Tree) *validators.Bootstrap {
	f := finder{&validators.Bootstrap{Charts: map[string]bool{}, Groups: map[string]bool{}}}
	for _, file := range t.Files() {
		switch {
		case isHelmfile(file.Path()):
			f.helmfile(file)
		case isScript(file.Path()), isBootstrapKustomization(file.Path()):
			f.script(file)
		}
	}
	return f.found
}

type finder struct{ found *validators.Bootstrap }

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

// isBootstrapKustomization reports whether a file is a kustomization.yaml that a person applies before Flux runs.
func isBootstrapKustomization(p string) bool {
	return path.Base(p) == "kustomization.yaml" && slices.Contains(strings.Split(path.Dir(p), "/"), "bootstrap")
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
				f.found.Charts[w] = true
			}
			// A definition is named <plural>.<group>, its file often <group>_<plural>.yaml.
			for group := w; group != ""; _, group, _ = strings.Cut(group, ".") {
				if strings.Contains(group, ".") {
					f.found.Groups[group] = true
				}
			}
		}
	}
}

func (f finder) chart(ref string) { f.found.Charts[path.Base(ref)] = true }
