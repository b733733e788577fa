package check

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// marker is a comment behind a value that image-automation-controller updates:
//
//	image: nginx:1.27 # {"$imagepolicy": "flux-system:nginx"}
//
// The controller finds it as kyaml's short-hand for a setter: the comment is a JSON object and nothing else
// (sigs.k8s.io/kustomize/kyaml/fieldmeta), and the setters are NAMESPACE:NAME of an ImagePolicy, alone or with :tag, :name or :digest.
type marker struct {
	position validators.Position
	policy   types.NamespacedName
}

// markerSyntax is the form of a marker, for people.
const markerSyntax = `# {"$imagepolicy": "NAMESPACE:NAME"}`

// markerKey is the key of a marker's JSON object.
const markerKey = "$imagepolicy"

// likelyMarker matches a comment that is meant as a marker, whatever its quotes and the rest of the comment are.
var likelyMarker = regexp.MustCompile(`(?i)\{\s*['"]?\$image-?polic(?:y|ies)\b`)

// markerProblems returns a problem for each marker in the files that builds read and that no ImageUpdateAutomation acts on.
func markerProblems(built *kustomization.Result) []*validators.Problem {
	index := imagePoliciesOf(built)
	if index == nil {
		return nil // the images of this tree are updated by something else, if at all
	}
	var out []*validators.Problem
	for _, f := range built.Marked {
		walk := markerWalk{file: f}
		for _, doc := range f.Parse().Documents {
			walk.node(doc, "")
		}
		out = append(out, walk.problems...)
		for _, m := range walk.markers {
			if p := index.check(f, m); p != nil {
				out = append(out, p)
			}
		}
	}
	return out
}

// markerWalk collects the markers of a file, and what is wrong with their form.
type markerWalk struct {
	file     *sourcetree.File
	markers  []marker
	problems []*validators.Problem
}

// node reads the markers behind the scalars of a node; key is that of the mapping entry that has it.
func (w *markerWalk) node(n *yaml.Node, key string) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			w.node(n.Content[i+1], n.Content[i].Value)
		}
	case yaml.ScalarNode:
		if likelyMarker.MatchString(n.LineComment) {
			w.marker(n, key)
		}
	default:
		for _, item := range n.Content {
			w.node(item, key)
		}
	}
}

func (w *markerWalk) marker(n *yaml.Node, key string) {
	at := w.file.Position(n.Line, n.Column)
	text := strings.TrimSpace(strings.TrimLeft(n.LineComment, "#"))
	var object map[string]string
	if err := json.Unmarshal([]byte(text), &object); err != nil || object[markerKey] == "" {
		w.invalid(at, "the marker is not the comment that image-automation-controller looks for, a JSON object and nothing else", "Write "+markerSyntax+".")
		return
	}
	parts := strings.Split(object[markerKey], ":")
	field := ""
	if len(parts) == 3 {
		field = parts[2]
	}
	switch {
	case len(parts) < 2 || len(parts) > 3 || len(validation.IsDNS1123Label(parts[0])) > 0 || len(validation.IsDNS1123Subdomain(parts[1])) > 0:
		w.invalid(at, fmt.Sprintf("the marker names no ImagePolicy: %q is not NAMESPACE:NAME", object[markerKey]), "Write "+markerSyntax+".")
	case len(parts) == 3 && !slices.Contains([]string{"tag", "name", "digest"}, field):
		w.invalid(at, fmt.Sprintf("the marker ends in :%s, which image-automation-controller does not know", field),
			"Use :tag, :name or :digest, or nothing for the whole image.")
	default:
		if wrong, want := misfit(key, n.Value, field); wrong != "" {
			w.invalid(at, wrong, want)
			return
		}
		w.markers = append(w.markers, marker{position: at, policy: types.NamespacedName{Namespace: parts[0], Name: parts[1]}})
	}
}

func (w *markerWalk) invalid(at validators.Position, message, fix string) {
	w.problems = append(w.problems, markerProblem(at, message, fix))
}

func markerProblem(at validators.Position, message, fix string) *validators.Problem {
	return &validators.Problem{
		Kind: validators.ProblemMarkerUnused, Diagnostic: validators.Diagnostic{Position: at, Message: message, Fix: fix},
	}
}

// tagKey matches the keys of fields that have the tag of an image alone.
var tagKey = regexp.MustCompile(`^(?:tag|newTag|[a-z]+Tag)$`)

// misfit reports a marker that replaces a value by one of another form: a tag by an image, or the reverse.
func misfit(key, value, field string) (wrong, want string) {
	if value == "" || unresolved.HasVariable(value) || unresolved.HasTemplate(value) {
		return "", ""
	}
	value, _, _ = strings.Cut(value, "@")
	isImage := strings.ContainsAny(value, "/:")
	switch {
	case field == "" && tagKey.MatchString(key) && !isImage:
		return "the marker writes the whole image into the field of the tag", "End the marker in :tag, or in :name where the field is the image's name."
	case field == "tag" && isImage:
		return "the marker writes the tag alone into the field of an image", "Remove :tag from the marker."
	case field == "name" && strings.Contains(path.Base(value), ":"):
		return "the marker writes the name of the image without a tag into the field of an image", "Remove :name from the marker."
	}
	return "", ""
}

// imagePolicies are the ImagePolicies of the clusters of a tree, and what updates files with them.
type imagePolicies struct {
	policies    map[types.NamespacedName]bool
	automations map[string][]automation // by namespace
	// complete means that the clusters have no others.
	complete bool
}

// automation is an ImageUpdateAutomation. Anywhere means that it is not known which files of the tree it updates.
type automation struct {
	name, dir string
	anywhere  bool
}

// imagePoliciesOf returns nil for a tree without an ImagePolicy and an ImageUpdateAutomation.
func imagePoliciesOf(built *kustomization.Result) *imagePolicies {
	if len(built.Marked) == 0 {
		return nil
	}
	out := &imagePolicies{policies: map[types.NamespacedName]bool{}, automations: map[string][]automation{}, complete: true}
	for _, c := range built.Clusters {
		out.complete = out.complete && c.Complete
		for _, o := range c.Objects {
			switch gk := o.GroupVersionKind().GroupKind(); {
			case gk == flux.ImagePolicy:
				out.policies[types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}] = true
			case gk == flux.ImageUpdateAutomation:
				out.automations[o.GetNamespace()] = append(out.automations[o.GetNamespace()], automationOf(c, o))
			case o.GetKind() == "ResourceSet":
				out.complete = false
			}
		}
	}
	if len(out.policies)+len(out.automations) == 0 {
		return nil
	}
	return out
}

func automationOf(c *kustomization.Cluster, o *kustomization.Object) automation {
	dir, _, _ := unstructured.NestedString(o.Object, "spec", "update", "path")
	a := automation{name: o.GetNamespace() + "/" + o.GetName(), dir: sourcetree.Rel(dir), anywhere: true}
	if e := c.Entry; e != nil && e.From == "" && e.Mount == "" {
		source := flux.SourceOf(o.Unstructured)
		a.anywhere = source.Name != e.Source.Name || source.Namespace != e.Source.Namespace || unresolved.HasVariable(dir)
	}
	return a
}

// check returns what is wrong with a marker of the right form; nil if nothing is, or if that is not known.
func (i *imagePolicies) check(f *sourcetree.File, m marker) *validators.Problem {
	if !i.policies[m.policy] {
		return i.missing(m)
	}
	automations := i.automations[m.policy.Namespace]
	if len(automations) == 0 {
		if !i.complete {
			return nil
		}
		message := "no ImageUpdateAutomation is in namespace " + m.policy.Namespace + ": one updates with the ImagePolicies of its own namespace only"
		return markerProblem(m.position, message, "Move the ImagePolicy to the namespace of the ImageUpdateAutomation, or add one.")
	}
	var dirs []string
	for _, a := range automations {
		if a.anywhere || a.dir == "." || strings.HasPrefix(f.Path(), a.dir+"/") {
			return nil
		}
		dirs = append(dirs, a.dir+" ("+a.name+")")
	}
	if !i.complete {
		return nil
	}
	message := "no ImageUpdateAutomation updates this file: spec.update.path is " + strings.Join(dirs, " and ")
	return markerProblem(m.position, message, "Set spec.update.path to a directory that has the file.")
}

// missing returns the problem of a marker whose ImagePolicy does not exist. Where it may exist, only a likely mistake is one.
func (i *imagePolicies) missing(m marker) *validators.Problem {
	var elsewhere, names []string
	for key := range i.policies {
		switch {
		case key.Namespace == m.policy.Namespace:
			names = append(names, key.Name)
		case key.Name == m.policy.Name:
			elsewhere = append(elsewhere, key.Namespace)
		}
	}
	slices.Sort(names)
	slices.Sort(elsewhere)
	near := suggest.Nearest(m.policy.Name, names)
	if !i.complete && near == "" && len(elsewhere) == 0 {
		return nil
	}
	message := "ImagePolicy " + m.policy.String() + " does not exist in the tree"
	switch {
	case len(elsewhere) > 0:
		message += "; one exists in namespace " + strings.Join(elsewhere, ", ")
	case near != "":
		message += "; did you mean " + near + "?"
	}
	return markerProblem(m.position, message, "Correct the namespace or the name in the marker, add the ImagePolicy, or remove the marker.")
}
