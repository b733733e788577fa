package kustomization

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	duplicateID  = regexp.MustCompile(`may not add resource with an already registered id: (\S+)`)
	noPatchMatch = regexp.MustCompile(`no (?:matches for Id|resource matches strategic merge patch) "?([^\s";]+)`)
	unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)
	treePath     = regexp.MustCompile(`[\w./@+-]*/[\w./@+-]+|[\w@+-]+\.(?:yaml|yml|json|env)`)
	accumulation = regexp.MustCompile(`^.*(?:accumulat(?:ing|ion)|recursed)[^:]*(?:: |=')`)
)

// explain says in plain words why kustomize refused to build, and which file is at fault.
func explain(r *reach, err error) *Problem {
	text := redact(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " "))
	p := &Problem{Kind: BuildFailed, Detail: text, Position: r.fault(text)}
	switch {
	case duplicateID.MatchString(text):
		id := duplicateID.FindStringSubmatch(text)[1]
		kind, namespace, name := splitID(id)
		p.Name = name
		p.Message = fmt.Sprintf("the build fails: %s %s is there twice", kind, slashed(namespace, name))
		if places := r.definitions(kind, name, r.resourceFiles()); len(places) > 0 {
			var in []string
			for _, place := range places {
				if !slices.Contains(in, place.File) {
					in = append(in, place.File)
				}
			}
			p.Message += ", in " + strings.Join(in, " and ")
			p.Other = places
			if len(in) == 1 {
				p.Other = append(p.Other, r.listings(in[0])...)
			}
		}
		if users := r.repeated(); len(users) > 0 {
			// The usual cause: one component or base included by several directories that end up in one namespace.
			p.Position = users[len(users)-1]
			p.Other = append(p.Other, users[:len(users)-1]...)
		}
	case noPatchMatch.MatchString(text):
		kind, namespace, name := splitID(noPatchMatch.FindStringSubmatch(text)[1])
		p.Name = name
		p.Message = fmt.Sprintf("the build fails: a patch is for %s %s, which is not among the resources", kind, slashed(namespace, name))
		if places := r.definitions(kind, name, r.patchFiles()); len(places) > 0 {
			p.Position = places[0]
		}
	case unknownField.MatchString(text):
		p.Name = unknownField.FindStringSubmatch(text)[1]
		p.Message = fmt.Sprintf("the build fails: %s has an unknown field %q", path.Base(p.Position.File), p.Name)
	case strings.Contains(text, "must specify --enable-helm"):
		p.Message = "the build fails: helmCharts need kustomize's Helm support, which Flux does not switch on; use a HelmRelease"
	case strings.Contains(text, "cycle detected: "):
		p.Message = "the build fails: the directories include each other: " + text[strings.Index(text, "cycle detected: ")+len("cycle detected: "):]
	case strings.Contains(text, "kustomization.yaml is empty"):
		p.Message = "the build fails: the kustomization.yaml is empty"
	default:
		p.Message = "the build fails: " + plain(text)
	}
	return p
}

// quotations are where kustomize and the YAML parsers quote what they were given, which may be a Secret's value.
var quotations = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile("with config: `[^`]*`"), "with its configuration"},
	{regexp.MustCompile(`\[patch: "(?:\\.|[^"\\])*"\]`), "an inline patch"},
	{regexp.MustCompile(`literal sources \[.*?\]: `), ""},
	{regexp.MustCompile(`invalid map key: .*`), "a key that is not text"},
	{regexp.MustCompile(`literal source .*?,? expected`), "literal source, expected"},
	{regexp.MustCompile("(!!\\w+) `[^`]*`"), "$1"},
	{regexp.MustCompile(`(?:from|failed to decode): \{.*`), "an object"},
}

// redact leaves out of a tool's message what it quotes of its input.
func redact(text string) string {
	for _, q := range quotations {
		text = q.pattern.ReplaceAllString(text, q.instead)
	}
	return text
}

// plain leaves out of a message of kustomize's what only says how it got there.
func plain(text string) string {
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

// fault finds the file that an error of kustomize's is about: the last one of the build that it names, else the kustomization itself.
func (r *reach) fault(text string) Position {
	found := r.root.file
	for _, m := range treePath.FindAllString(text, -1) {
		for _, candidate := range []string{rel(m), rel(path.Join(r.root.dir, m))} {
			if r.view.isDir(candidate) && candidate != "." {
				if kf := r.view.kustomizationFile(candidate); kf != "" {
					found = kf
				}
			}
			if r.view.files[candidate] != nil {
				found = candidate
			}
		}
	}
	if r.view.files[found] == nil {
		return Position{}
	}
	return r.view.tree.place(found, 0, 0)
}

// definitions finds the documents with an object of the kind and name in files of the build.
func (r *reach) definitions(kind, name string, files []string) []Position {
	var out []Position
	for _, p := range files {
		for _, doc := range r.view.files[p].document().docs {
			if id := identify(doc); id.kind == kind && id.name != "" && strings.Contains(name, id.name) {
				root := content(doc)
				out = append(out, r.view.tree.place(p, root.Line, root.Column))
			}
		}
	}
	return out
}

// listings returns the places that list a file as a resource, when there is more than one.
func (r *reach) listings(name string) []Position {
	var out []Position
	for _, dir := range sortedKeys(r.steps) {
		s := r.steps[dir]
		list := child(s.doc, "resources")
		if !s.files[strings.TrimPrefix(name, r.view.tree.label)] || list == nil {
			continue
		}
		for _, n := range list.Content {
			if r.view.tree.label+rel(path.Join(s.dir, n.Value)) == name {
				out = append(out, r.view.tree.place(s.file, n.Line, n.Column))
			}
		}
	}
	if len(out) < 2 {
		return nil
	}
	return out
}

func (r *reach) patchFiles() []string {
	var out []string
	for _, dir := range sortedKeys(r.steps) {
		s := r.steps[dir]
		if s.k == nil {
			continue
		}
		names := make([]string, 0, len(s.k.Patches)+len(s.k.PatchesStrategicMerge))
		for _, p := range s.k.Patches {
			names = append(names, p.Path)
		}
		for _, p := range s.k.PatchesStrategicMerge {
			names = append(names, string(p))
		}
		for _, n := range names {
			if f := rel(path.Join(s.dir, n)); r.view.files[f] != nil {
				out = append(out, f)
			}
		}
	}
	return out
}

func (r *reach) resourceFiles() []string {
	seen := map[string]bool{}
	for _, s := range r.steps {
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

// repeated returns the places that include one and the same step more than once without a namespace of their own: the includer that lacks
// `namespace:` comes last, as it is the likeliest fault.
func (r *reach) repeated() []Position {
	var out, without []Position
	for _, s := range r.steps {
		if len(s.parents) < 2 {
			continue
		}
		for _, parent := range s.parents {
			place := r.includePlace(parent, s)
			if parent.k != nil && parent.k.Namespace == "" {
				without = append(without, place)
			} else {
				out = append(out, place)
			}
		}
	}
	sortPlaces(out)
	sortPlaces(without)
	if len(without) == 0 {
		return nil
	}
	return append(out, without...)
}

func (r *reach) includePlace(parent, s *step) Position {
	for _, field := range []string{"components", "resources", "bases"} {
		list := child(parent.doc, field)
		if list == nil {
			continue
		}
		for _, n := range list.Content {
			if rel(path.Join(parent.dir, n.Value)) == s.dir {
				return r.view.tree.place(parent.file, n.Line, n.Column)
			}
		}
	}
	return r.view.tree.place(parent.file, 0, 0)
}

func sortPlaces(ps []Position) {
	slices.SortFunc(ps, func(a, b Position) int { return strings.Compare(a.String(), b.String()) })
}

// splitID takes kustomize's name of a resource apart: Kind.version.group/name.namespace, with [noGrp] and [noNs] for what is not there.
func splitID(id string) (kind, namespace, name string) {
	gvk, rest, ok := strings.Cut(strings.Trim(id, `"'`), "/")
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

func slashed(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
