package build

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	kustypes "sigs.k8s.io/kustomize/api/types"
)

// screen looks for remote addresses that kustomize would fetch in other fields than resources.
func (g *graph) screen(n *node, k *kustypes.Kustomization) {
	var paths, texts []string // files that kustomize parses, text that it parses
	for _, p := range slices.Concat(k.Patches, k.PatchesJson6902) {
		paths, texts = append(paths, p.Path), append(texts, p.Patch)
	}
	for _, p := range k.PatchesStrategicMerge {
		if strings.Contains(string(p), "\n") {
			texts = append(texts, string(p))
		} else {
			paths = append(paths, string(p))
		}
	}
	for _, replacement := range k.Replacements {
		paths = append(paths, replacement.Path)
	}
	paths = append(paths, k.Configurations...)
	paths = append(paths, k.Crds...)
	paths = append(paths, k.OpenAPI["path"])
	plugins := slices.Concat(k.Generators, k.Transformers, k.Validators)
	g.plugins = g.plugins || len(plugins) > 0
	for _, p := range plugins {
		if strings.Contains(p, "\n") {
			texts = append(texts, p)
		} else {
			paths = append(paths, p)
		}
	}
	for _, p := range paths {
		g.screenPath(n, p, slices.Contains(plugins, p))
	}
	for _, t := range texts {
		g.screenText(n, t, slices.Contains(plugins, t))
	}
}

func (g *graph) screenPath(n *node, p string, plugin bool) {
	if p == "" {
		return
	}
	if isRemote(p) {
		g.block(n, p)
		return
	}
	f := g.artifact.File(path.Join(n.dir, p))
	if f == nil {
		if plugin && g.artifact.IsDir(path.Join(n.dir, p)) {
			g.block(n, p) // a directory of plugin configurations, which can include remote ones
		}
		return
	}
	if parsed := f.Parse(); parsed.Refused() != "" {
		g.blocked = true
		g.report(buildFailed(f.Position(0, 0), "the build fails: %s", parsed.Failure().Message))
		return
	}
	if data, err := f.Content(); err == nil && plugin && pluginFetches.Match(data) {
		g.block(n, "in the configuration of a generator or transformer")
	}
}

func (g *graph) screenText(n *node, text string, plugin bool) {
	if strings.Contains(text, "*") && strings.Contains(text, "&") {
		if parsed := g.artifact.ParseText(n.file, text); parsed.Refused() != "" {
			g.blocked = true
			g.report(buildFailed(g.artifact.Position(n.file, 0, 0), "a patch was not read: %s", parsed.Refused()))
		}
	}
	if plugin && pluginFetches.MatchString(text) {
		g.block(n, "in the configuration of a generator or transformer")
	}
}

// pluginFetches matches what may be a remote address in the configuration of a kustomize plugin.
var pluginFetches = regexp.MustCompile(`(?i)(https?:|ssh:|file:|git::|github\.com[/:]|[a-z][a-z0-9-]*@)`)

// block prevents the build, because it would fetch what is not in the tree.
func (g *graph) block(n *node, what string) {
	if g.allowRemote {
		return
	}
	g.blocked = true
	what = redactURL(what)
	g.report(remoteBase(g.artifact.Position(n.file, 0, 0), what,
		fmt.Sprintf("not evaluated: %s refers to something outside of the tree (%s)", path.Base(n.file), what)))
}

var scpUser = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]*@`)

// isRemote reports whether kustomize would fetch the address, over HTTP or with git. It follows IsRemoteFile and
// NewRepoSpecFromURL of kustomize 0.21.1, and returns true when in doubt.
func isRemote(s string) bool {
	lower := strings.ToLower(s)
	lower = strings.TrimPrefix(lower, "git::")
	for _, prefix := range []string{"http:", "https:", "ssh://", "file://", "github.com/", "github.com:"} {
		if strings.HasPrefix(lower, prefix) {
			return true
		}
	}
	return scpUser.MatchString(lower)
}

// redactURL removes user and password from an address.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return s
	}
	u.User = nil
	return u.String()
}
