package build

import (
	"encoding/base64"
	"fmt"
	"path"
	"slices"
	"strings"

	kustypes "sigs.k8s.io/kustomize/api/types"

	"github.com/flux-admission/flux-admission/validators"
)

// unknownContent takes the place of content that is not in the tree. Its prefix is that of an encrypted value, which
// rules know as unresolved.
const unknownContent = "ENC[AES256_GCM,data:outside of the tree]"

// IsUnknownContent reports whether the value of a ConfigMap or a Secret is one that is not in the tree.
func IsUnknownContent(text string) bool {
	return text == unknownContent || text == base64.StdEncoding.EncodeToString([]byte(unknownContent))
}

// replaceFiles replaces the files of a generator that are remote or missing by unknown content, so that they cost no
// more than their own object. It reports whether there are any.
func (g *graph) replaceFiles(n *node, kind string, args *kustypes.GeneratorArgs) bool {
	var files, envs, literals []string
	for _, entry := range args.FileSources {
		key, file, named := strings.Cut(entry, "=")
		if !named {
			key, file = path.Base(entry), entry
		}
		if g.readable(n, kind, args.Name, file) {
			files = append(files, entry)
		} else {
			literals = append(literals, key+"="+unknownContent)
		}
	}
	for _, entry := range args.EnvSources {
		if g.readable(n, kind, args.Name, entry) {
			envs = append(envs, entry)
		}
	}
	env := args.EnvSource
	if env != "" && !g.readable(n, kind, args.Name, env) {
		env = ""
	}
	if len(files) == len(args.FileSources) && len(envs) == len(args.EnvSources) && env == args.EnvSource {
		return false
	}
	args.FileSources, args.EnvSources, args.EnvSource = files, envs, env
	args.LiteralSources = append(append([]string{}, args.LiteralSources...), literals...)
	return true
}

// readable reports whether a generator can read a file. One that it cannot is reported.
func (g *graph) readable(n *node, kind, name, file string) bool {
	at := g.artifact.Position(n.file, 0, 0)
	if found, ok := g.artifact.Search(n.file, file, 1); ok {
		at = found
	}
	if isRemote(file) {
		if g.allowRemote {
			return true
		}
		address := redactURL(file)
		g.report(&validators.Problem{Kind: validators.ProblemRemoteContent, Name: address, Diagnostic: validators.Diagnostic{
			Position: at,
			Message:  fmt.Sprintf("cannot determine the content of the %s %s: %s is outside of the tree; --allow-remote-bases fetches it", kind, name, address),
		}})
		return false
	}
	p := path.Join(n.dir, file)
	if path.IsAbs(file) || g.artifact.File(p) != nil {
		return true
	}
	problem := buildFailed(at, "the build fails: the generator of the %s %s reads %s, but %s", kind, name, file, g.artifact.ExplainMissing(p))
	problem.Fix = "Add the file to the tree, or correct the generator's entry."
	problem.Name, problem.Suggestion = file, g.suggestion(n.dir, p)
	g.report(problem)
	return false
}

// generatorFiles returns the files that a generator reads.
func generatorFiles(s kustypes.KvPairSources) []string {
	out := append(slices.Clone(s.EnvSources), s.EnvSource)
	for _, f := range s.FileSources {
		if _, p, ok := strings.Cut(f, "="); ok {
			f = p
		}
		out = append(out, f)
	}
	return out
}
