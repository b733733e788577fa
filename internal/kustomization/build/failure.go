package build

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

var (
	duplicateID  = regexp.MustCompile(`may not add resource with an already registered id: (\S+)`)
	noPatchMatch = regexp.MustCompile(`no (?:matches for Id|resource matches strategic merge patch) "?([^\s";]+)`)
	idConflict   = regexp.MustCompile(`namespace transformation produces ID conflict: \[`)
	unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)
	treePath     = regexp.MustCompile(`[\w./@+-]*/[\w./@+-]+|[\w@+-]+\.(?:yaml|yml|json|env)`)
	accumulation = regexp.MustCompile(`^.*(?:accumulat(?:ing|ion)|recursed)[^:]*(?:: |=')`)
)

// buildFailed returns the problem of a build that kustomize refuses.
func buildFailed(at validators.Position, format string, args ...any) *validators.Problem {
	return &validators.Problem{Kind: validators.ProblemBuildFailed, Diagnostic: validators.Diagnostic{Position: at, Message: fmt.Sprintf(format, args...)}}
}

// remoteBase returns the problem of a resource that is not in the tree.
func remoteBase(at validators.Position, name, message string) *validators.Problem {
	return &validators.Problem{Kind: validators.ProblemRemoteBase, Name: name, Diagnostic: validators.Diagnostic{Position: at, Message: message}}
}

// explain returns the problem of a build that kustomize refused, in plain words and at the file at fault.
func (g *graph) explain(err error) *validators.Problem {
	if p := g.explainConflict(err.Error()); p != nil {
		return p
	}
	text := Redact(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " "))
	p := buildFailed(g.fault(text), "the build fails: %s", withoutContext(text))
	p.Detail = text
	switch {
	case duplicateID.MatchString(text):
		g.explainDuplicate(p, duplicateID.FindStringSubmatch(text)[1])
		p.Detail = "" // it repeats the message, for each directory in between
		p.Fix = "Keep one definition, or list the file or directory once."
	case noPatchMatch.MatchString(text):
		kind, namespace, name := splitID(noPatchMatch.FindStringSubmatch(text)[1])
		p.Name = name
		p.Message = fmt.Sprintf("the build fails: a patch targets %s %s, which is not among the resources", kind, objectName(namespace, name))
		p.Fix = "Correct the kind, the name or the namespace of the patch's target, or remove the patch."
		g.explainPatch(p, kind, namespace, name)
		p.Detail = "" // as above
	case unknownField.MatchString(text):
		p.Name = unknownField.FindStringSubmatch(text)[1]
		p.Message = fmt.Sprintf("the build fails: %s has an unknown field %q", path.Base(p.Position.File), p.Name)
		p.Fix = "Correct the name of the field, or remove it."
	case strings.Contains(text, "must specify --enable-helm"):
		p.Message = "the build fails: helmCharts need kustomize's Helm support, which Flux does not enable; use a HelmRelease"
		p.Fix = "Replace helmCharts by a HelmRelease with its source."
		g.placeField(p, "helmCharts")
	case strings.Contains(text, "cycle detected: "):
		p.Message = "the build fails: the directories include each other: " + text[strings.Index(text, "cycle detected: ")+len("cycle detected: "):]
		p.Fix = "Remove the entry that includes a directory from below itself."
	case strings.Contains(text, "kustomization.yaml is empty"):
		p.Message = "the build fails: the kustomization.yaml is empty"
		p.Fix = emptyFix
	case componentListed.MatchString(text):
		g.placeComponent(p, sourcetree.Rel(componentListed.FindStringSubmatch(text)[1]))
	case patchFile.MatchString(text):
		g.placePatchFile(p, patchFile.FindStringSubmatch(text)[1])
	case patchOperation.MatchString(text):
		g.placeOperation(p, patchOperation.FindStringSubmatch(text)[1])
	case objectWithout.MatchString(text):
		g.placeDocument(p)
	case kindOfFile.MatchString(text):
		p.Fix = "Set apiVersion: kustomize.config.k8s.io/v1beta1 and kind: Kustomization, or rename the file if it is a Flux Kustomization."
		g.placeField(p, "apiVersion")
	}
	g.placeFirst(p)
	return p
}

// emptyFix is the fix of an empty kustomization.yaml.
const emptyFix = "List resources in the kustomization.yaml, or remove the directory and what lists it."

// listedFix is the fix of an entry that is not there.
const listedFix = "Add the file or directory that the entry names, or remove the entry."

// explainDuplicate completes the problem of an object that two resources define. ID is kustomize's name of it.
func (g *graph) explainDuplicate(p *validators.Problem, id string) {
	kind, namespace, name := splitID(id)
	p.Name = name
	p.Message = fmt.Sprintf("the build fails: %s %s is defined twice", kind, objectName(namespace, name))
	if positions := g.definitions(kind, name, g.resourceFiles()); len(positions) > 0 {
		var files []string
		for _, at := range positions {
			if !slices.Contains(files, at.File) {
				files = append(files, at.File)
			}
		}
		p.Message += ", in " + strings.Join(files, " and ")
		p.Related = positions
		if len(files) > 1 {
			p.Position = positions[len(positions)-1]
		}
		if len(files) == 1 {
			p.Related = append(p.Related, g.listings(files[0])...)
		}
	}
	if includers := g.repeated(); len(includers) > 0 {
		// The usual cause: several directories with the same namespace include the same component or base.
		p.Position = includers[len(includers)-1]
		p.Related = append(p.Related, includers[:len(includers)-1]...)
	}
}

// quotations are the parts of messages in which kustomize and the YAML parsers quote their input, which may be a
// Secret's value.
var quotations = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	{regexp.MustCompile("with config: `[^`]*`"), "with its configuration"},
	{regexp.MustCompile(`\[patch: "(?:\\.|[^"\\])*"\]`), "an inline patch"},
	{regexp.MustCompile(`literal sources \[.*?\]: `), ""},
	{regexp.MustCompile(`invalid map key: .*`), "a key that is not text"},
	{regexp.MustCompile(`literal source .*?,? expected`), "literal source, expected"},
	{regexp.MustCompile(`ID conflict: \[.*`), "ID conflict"},
	{regexp.MustCompile("(!!\\w+) `[^`]*`"), "$1"},
	{regexp.MustCompile(`(?:from|failed to decode): \{.*`), "an object"},
}

// Redact removes from the message of kustomize or of a YAML parser what it quotes of its input.
func Redact(text string) string {
	for _, q := range quotations {
		text = q.pattern.ReplaceAllString(text, q.replacement)
	}
	return text
}

// withoutContext removes from a message of kustomize the directories that led to the failure.
func withoutContext(text string) string {
	text = strings.ReplaceAll(text, "\n", " ")
	for {
		cut := accumulation.ReplaceAllString(text, "")
		if cut == text || cut == "" {
			break
		}
		text = cut
	}
	text = strings.TrimPrefix(text, "invalid Kustomization: ")
	text = strings.TrimPrefix(text, "json: ")
	return strings.TrimRight(strings.TrimSpace(text), ".")
}

// fault returns the position of the file that an error of kustomize is about: the last file of the build in its text,
// else the root's kustomization file.
func (g *graph) fault(text string) validators.Position {
	found := g.root.file
	for _, m := range treePath.FindAllString(text, -1) {
		for _, candidate := range []string{sourcetree.Rel(m), sourcetree.Rel(path.Join(g.root.dir, m))} {
			if g.artifact.IsDir(candidate) && candidate != "." {
				if kf := File(g.artifact, candidate); kf != "" {
					found = kf
				}
			}
			if g.artifact.File(candidate) != nil {
				found = candidate
			}
		}
	}
	if g.artifact.File(found) == nil {
		return validators.Position{}
	}
	return g.artifact.Position(found, 0, 0)
}

// definitions returns the positions of the objects of the kind and name in files of the build.
func (g *graph) definitions(kind, name string, files []string) []validators.Position {
	var out []validators.Position
	for _, p := range files {
		for _, doc := range g.artifact.File(p).Parse().Documents {
			if id := sourcetree.Identify(doc); id.Kind == kind && id.Name != "" && strings.Contains(name, id.Name) {
				root := yamlposition.Root(doc)
				out = append(out, g.artifact.Position(p, root.Line, root.Column))
			}
		}
	}
	return out
}

// listings returns the positions that list a file as a resource, when there is more than one.
func (g *graph) listings(name string) []validators.Position {
	var out []validators.Position
	for _, dir := range slices.Sorted(maps.Keys(g.nodes)) {
		s := g.nodes[dir]
		list := yamlposition.Child(s.doc, "resources")
		if !s.files[g.artifact.PathOf(name)] || list == nil {
			continue
		}
		for _, n := range list.Content {
			if g.artifact.Name(sourcetree.Rel(path.Join(s.dir, n.Value))) == name {
				out = append(out, g.artifact.Position(s.file, n.Line, n.Column))
			}
		}
	}
	if len(out) < 2 {
		return nil
	}
	return out
}

func (g *graph) resourceFiles() []string {
	seen := map[string]bool{}
	for _, s := range g.nodes {
		for f := range s.files {
			seen[f] = true
		}
	}
	out := make([]string, 0, len(seen))
	for f := range seen {
		out = append(out, f)
	}
	slices.Sort(out)
	return out
}

// repeated returns the positions that include the same node as others do: those of kustomizations without a namespace
// come last, since these are the most likely fault. There is none when every including kustomization has a namespace.
func (g *graph) repeated() []validators.Position {
	var out, without []validators.Position
	for _, s := range g.nodes {
		if len(s.parents) < 2 {
			continue
		}
		for _, parent := range s.parents {
			at := g.includePosition(parent, s)
			if parent.k != nil && parent.k.Namespace == "" {
				without = append(without, at)
			} else {
				out = append(out, at)
			}
		}
	}
	sortPositions(out)
	sortPositions(without)
	if len(without) == 0 {
		return nil
	}
	return append(out, without...)
}

// includePosition returns the position of the entry with which a node includes another.
func (g *graph) includePosition(parent, s *node) validators.Position {
	for _, field := range []string{"components", "resources", "bases"} {
		list := yamlposition.Child(parent.doc, field)
		if list == nil {
			continue
		}
		for _, n := range list.Content {
			if sourcetree.Rel(path.Join(parent.dir, n.Value)) == s.dir {
				return g.artifact.Position(parent.file, n.Line, n.Column)
			}
		}
	}
	return g.artifact.Position(parent.file, 0, 0)
}

func sortPositions(ps []validators.Position) {
	slices.SortFunc(ps, func(a, b validators.Position) int { return strings.Compare(a.String(), b.String()) })
}

// splitID splits kustomize's ID of a resource: Kind.version.group/name.namespace, where [noGrp] and [noNs] mean none.
func splitID(id string) (kind, namespace, name string) {
	gvk, rest, ok := strings.Cut(strings.Trim(id, `"':`), "/")
	if !ok {
		return "the resource", "", id
	}
	kind, _, _ = strings.Cut(gvk, ".")
	name = rest
	if i := strings.LastIndex(rest, "."); i >= 0 {
		name, namespace = rest[:i], rest[i+1:]
	}
	if namespace == "[noNs]" {
		namespace = ""
	}
	return kind, namespace, name
}

func objectName(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
