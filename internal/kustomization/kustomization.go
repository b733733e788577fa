package kustomization

import (
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	fluxssa "github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/internal/kustomization/entrypoint"
	"github.com/flux-admission/flux-admission/internal/kustomization/substitute"
	"github.com/flux-admission/flux-admission/internal/sourcetree"
	"github.com/flux-admission/flux-admission/internal/suggest"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// fluxGroups ends the API groups of Flux.
const fluxGroups = ".toolkit.fluxcd.io"

// substituteKey is the label or annotation of objects that are excluded from variable substitution.
var substituteKey = flux.Kustomization.Group + "/substitute"

// decryptKey is the annotation of objects that are excluded from decryption.
var decryptKey = flux.Kustomization.Group + "/decrypt"

// State is how much of a Kustomization's objects is known.
type State int

// The states. Only Built and Partial are what Flux really applies.
const (
	// Unknown: the source is elsewhere, the path is missing, or the build fails beyond repair.
	Unknown State = iota
	// Repaired: Flux refuses to build; the objects are those of a build without what is at fault (a missing file, a
	// duplicate key).
	Repaired
	// Partial: Flux builds; resources from remote bases are missing here.
	Partial
	// Built: the objects are what Flux applies.
	Built
)

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Repaired:
		return "repaired"
	case Partial:
		return "partial"
	case Built:
		return "built"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Kustomization is a Flux Kustomization and what it builds: a node of the graph.
type Kustomization struct {
	Key types.NamespacedName
	// Object is the Kustomization itself, as it is applied.
	Object *Object
	Spec   kustomizev1.KustomizationSpec
	// Parents are the Kustomizations that apply it, itself included when it does; Children are those that it applies.
	Parents, Children []*Kustomization
	// Source is spec.sourceRef with its namespace filled in.
	Source validators.ObjectRef
	// Path is the directory that it builds, relative to the root of its source; "." is the root.
	Path string
	// Objects are what it applies, in kustomize's order.
	Objects []*Object
	// State is how much of the objects is known.
	State State
	// Problems are what is wrong with it, by position.
	Problems []*validators.Problem
	// MissingVariables are the references of postBuild.substituteFrom that nothing in the cluster provides.
	MissingVariables []validators.ObjectRef

	root *entrypoint.EntryPoint // the entry point that creates it; nil when there is none
	// generated are the objects of its ResourceSets; uncertain are the ResourceSets of which not all objects are known.
	generated []*Object
	uncertain []*Object

	builds          int
	artifact        *sourcetree.Artifact
	output          *build.Output
	variables       *substitute.Variables // nil without spec.postBuild
	variableSources []*Object             // by substitute.Variable.Source
	substitutes     bool                  // Flux substitutes variables in its objects
	mistyped        error                 // why Spec lacks fields of the object
}

// Failed reports whether Flux refuses to build it.
func (k *Kustomization) Failed() bool { return slices.ContainsFunc(k.Problems, fails) }

// fails reports whether Flux refuses the whole Kustomization because of a problem.
func fails(p *validators.Problem) bool {
	switch p.Kind {
	case validators.ProblemPathMissing, validators.ProblemBuildFailed, validators.ProblemVariableUnset, validators.ProblemSpecInvalid:
		return true
	default:
		return false
	}
}

// RemoteCluster reports whether its objects are applied to another cluster than its own.
func (k *Kustomization) RemoteCluster() bool { return k.Spec.KubeConfig != nil }

// DependsOn returns spec.dependsOn with namespaces filled in, in its order.
func (k *Kustomization) DependsOn() []types.NamespacedName {
	out := make([]types.NamespacedName, 0, len(k.Spec.DependsOn))
	for _, d := range k.Spec.DependsOn {
		key := types.NamespacedName{Namespace: d.Namespace, Name: d.Name}
		if key.Namespace == "" {
			key.Namespace = k.Key.Namespace
		}
		out = append(out, key)
	}
	return out
}

// readSpec decodes the spec and sets the fields that follow from it.
func (k *Kustomization) readSpec() error {
	k.mistyped = nil
	spec, _ := k.Object.Object["spec"].(map[string]any)
	decoded, err := decodeSpec(spec)
	if err != nil {
		// The API server refuses the object, and rules on schemas report the field. What it would build is evaluated all
		// the same, without the fields of a wrong type.
		readable := map[string]any{}
		for field, value := range spec {
			if field == "postBuild" {
				value = withTextVariables(value)
			}
			if _, err := decodeSpec(map[string]any{field: value}); err == nil {
				readable[field] = value
			}
		}
		if readable["sourceRef"] == nil || readable["path"] == nil && spec["path"] != nil {
			return err
		}
		k.mistyped = err
		if decoded, err = decodeSpec(readable); err != nil {
			return err
		}
	}
	k.Spec = decoded
	k.Path = sourcetree.Rel(k.Spec.Path)
	s := k.Spec.SourceRef
	k.Source = validators.ObjectRef{Group: flux.GitRepository.Group, Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}
	if k.Source.Namespace == "" {
		k.Source.Namespace = k.Key.Namespace
	}
	return nil
}

func decodeSpec(spec map[string]any) (kustomizev1.KustomizationSpec, error) {
	var typed kustomizev1.Kustomization
	if err := apiruntime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"spec": spec}, &typed); err != nil {
		return typed.Spec, fmt.Errorf("reading the spec: %w", err)
	}
	return typed.Spec, nil
}

// withTextVariables copies spec.postBuild with the numbers and booleans of substitute as text: what their author means.
func withTextVariables(postBuild any) any {
	fields, _ := postBuild.(map[string]any)
	variables, _ := fields["substitute"].(map[string]any)
	if variables == nil {
		return postBuild
	}
	text := make(map[string]any, len(variables))
	for name, value := range variables {
		switch value.(type) {
		case map[string]any, []any:
		default:
			text[name] = fmt.Sprint(value)
		}
	}
	out := maps.Clone(fields)
	out["substitute"] = text
	return out
}

func problem(kind validators.ProblemKind, at validators.Position, format string, args ...any) *validators.Problem {
	return &validators.Problem{Kind: kind, Diagnostic: validators.Diagnostic{Position: at, Message: fmt.Sprintf(format, args...)}}
}

// report adds a problem. Without a position it gets that of its field in the Kustomization's own object.
func (k *Kustomization) report(p *validators.Problem) {
	if p.Position.File == "" {
		p.Position = k.Object.Locate(p.Path).Position
	}
	k.Problems = append(k.Problems, p)
}

// build builds one Kustomization and substitutes the variables of its objects. It changes nothing but the
// Kustomization.
func (c *clusterBuilder) build(k *Kustomization) {
	defer func() {
		// The libraries below are known to panic on unexpected input; the other Kustomizations must not be lost with
		// this one.
		if r := recover(); r != nil {
			k.State, k.Objects = Unknown, nil
			p := problem(validators.ProblemBuildFailed, validators.Position{}, "the build fails: %s: %v", build.Recovered, r)
			p.Detail = string(debug.Stack())
			k.report(p)
		}
	}()
	k.builds++
	k.Objects, k.Problems, k.MissingVariables, k.State, k.output, k.variables, k.variableSources = nil, nil, nil, Unknown, nil, nil, nil
	if err := k.readSpec(); err != nil {
		k.reportSpec(err)
		return
	}
	if k.mistyped != nil {
		k.reportSpec(k.mistyped)
	}
	if k.artifact = c.artifact(k); k.artifact == nil {
		return
	}
	if !k.artifact.IsDir(k.Path) {
		if k.artifact.Outside(k.Path) || c.mayInclude(k) {
			p := problem(validators.ProblemSourceUnknown, validators.Position{}, "the path %s was not built: %s", k.Spec.Path, k.artifact.ExplainMissing(k.Path))
			p.Name, p.Path = k.Spec.Path, validators.NewPath("spec", "path")
			k.report(p)
			return
		}
		k.reportPath()
		return
	}
	output, err := c.builder.Build(k.artifact, k.Path, &k.Spec)
	if err != nil {
		k.reportSpec(err)
		return
	}
	k.output = output
	for _, p := range output.Problems {
		if p.Kind == validators.ProblemPatchUnmatched && len(p.Path) > 0 && k.Object.Locate(p.Path).Role != RoleField {
			continue // another Kustomization patches it into all of its children, whatever they build
		}
		own := *p
		k.report(&own)
	}
	if output.Unknown {
		return
	}
	k.State = Built
	c.setObjects(k)
	for _, p := range k.Problems {
		if p.Kind == validators.ProblemRemoteBase || p.Kind == validators.ProblemRemoteContent {
			k.State = min(k.State, Partial)
		}
		if fails(p) {
			k.State = min(k.State, Repaired)
		}
	}
}

func (k *Kustomization) reportSpec(err error) {
	p := problem(validators.ProblemSpecInvalid, validators.Position{}, "the spec of the Kustomization cannot be read")
	p.Path, p.Detail = validators.NewPath("spec"), build.Redact(err.Error())
	k.report(p)
}

func (k *Kustomization) reportPath() {
	if k.artifact.File(k.Path) != nil {
		p := problem(validators.ProblemBuildFailed, validators.Position{}, "the path %s is a file, not a directory", k.Spec.Path)
		p.Path, p.Name = validators.NewPath("spec", "path"), k.Spec.Path
		p.Fix = "Set spec.path to the directory of the file."
		k.report(p)
		return
	}
	p := problem(validators.ProblemPathMissing, validators.Position{}, "the path %s does not exist: %s", k.Spec.Path, k.artifact.ExplainMissing(k.Path))
	p.Path, p.Name, p.Suggestion = validators.NewPath("spec", "path"), k.Spec.Path, k.artifact.NearestDir(k.Path)
	k.report(p)
}

// setObjects sets the objects that a Kustomization applies: those that kustomize built, after substitution.
func (c *clusterBuilder) setObjects(k *Kustomization) {
	c.setVariables(k)
	reported := map[string]bool{}
	for i := range k.output.Objects {
		o := newBuiltObject(k, &k.output.Objects[i])
		if err := k.output.Objects[i].Err; err != nil {
			k.report(problem(validators.ProblemBuildFailed, o.Locate(nil).Position, "an object cannot be written as JSON: %s", build.Redact(err.Error())))
			continue
		}
		k.substitute(o, reported)
		k.decrypt(o)
		o.findEncrypted()
		o.findUnknownContent()
		if m := k.Spec.CommonMetadata; m != nil {
			o.Unstructured = o.DeepCopy()
			fluxssa.SetCommonMetadata([]*unstructured.Unstructured{o.Unstructured}, m.Labels, m.Annotations)
		}
		k.Objects = append(k.Objects, o)
	}
}

// variablesRef returns the object that an entry of spec.postBuild.substituteFrom refers to.
func variablesRef(k *Kustomization, kind, name string) validators.ObjectRef {
	return validators.ObjectRef{Kind: kind, Namespace: k.Key.Namespace, Name: name}
}

// setVariables sets the variables of a Kustomization: those of the objects in substituteFrom, in their order, and
// over them those of substitute, as fluxcd/pkg/kustomize does.
func (c *clusterBuilder) setVariables(k *Kustomization) {
	pb := k.Spec.PostBuild
	k.substitutes = false
	if pb == nil {
		return
	}
	k.variables = &substitute.Variables{External: c.opts.Variables, Always: pb.SubstituteStrategy == kustomizev1.SubstituteStrategyAlways}
	for _, from := range pb.SubstituteFrom {
		ref := variablesRef(k, from.Kind, from.Name)
		o := c.objects[ref]
		if o == nil {
			k.MissingVariables = append(k.MissingVariables, ref)
			k.variables.Missing()
			continue
		}
		k.variableSources = append(k.variableSources, o)
		k.variables.Add(substitute.Source{Object: o.Unstructured, Encrypted: o.Encrypted, Unresolved: o.Unresolved})
	}
	k.variables.AddInline(pb.Substitute)
	k.substitutes = k.variables.Enabled()
	if len(k.output.Objects) == 0 {
		return
	}
	for _, name := range k.variables.Invalid() {
		v, _ := k.variables.Get(name)
		at := k.definer(v).Locate(v.Path).Position
		p := problem(validators.ProblemBuildFailed, at, "the variable name %q is invalid: it may contain only letters, digits and underscores", name)
		p.Path, p.Name = validators.NewPath("spec", "postBuild"), name
		p.Fix = "Rename the variable where it is defined and used."
		if v.Source != substitute.Inline {
			p.Fix = "Rename the key, or move it to an object that substituteFrom does not name: Flux takes every key as a variable."
			p.Related = []validators.Position{k.Object.Locate(validators.NewPath("spec", "postBuild", "substituteFrom")).Position}
		}
		k.report(p)
	}
}

// definer returns the object that defines a variable.
func (k *Kustomization) definer(v substitute.Variable) *Object {
	if v.Source == substitute.Inline {
		return k.Object
	}
	return k.variableSources[v.Source]
}

// substitute substitutes the variables of an object. Reported are the unset variables that were reported, with their
// positions.
func (k *Kustomization) substitute(o *Object, reported map[string]bool) {
	if !k.substitutes || o.GetLabels()[substituteKey] == "disabled" || o.GetAnnotations()[substituteKey] == "disabled" {
		return
	}
	result, err := k.variables.Substitute(o.Object)
	for _, f := range result.Failures {
		k.reportExpression(o, f)
	}
	if err != nil {
		p := problem(validators.ProblemBuildFailed, o.Locate(nil).Position, "%s: %v", o, err)
		p.Fix = "Quote values that hold variables, or " + disableSubstitution
		k.report(p)
		return
	}
	for _, name := range result.Unset {
		if o.GetKind() == "CustomResourceDefinition" && strings.HasSuffix(o.GetName(), fluxGroups) {
			break // Flux's own, whose descriptions have examples of variables: they are of the release that installs them
		}
		at := o.searchText("${" + name)
		if id := name + " " + at.String(); !reported[id] {
			reported[id] = true
			p := problem(validators.ProblemVariableUnset, at, "the variable %s has no value and no default", name)
			p.Name, p.Suggestion = name, suggest.Nearest(name, k.variables.Names())
			k.report(p)
		}
	}
	o.Object, o.Unresolved = result.Object, result.Unresolved
}

// reportExpression reports an expression in an object that envsubst cannot parse.
func (k *Kustomization) reportExpression(o *Object, f substitute.Failure) {
	at := o.searchText(f.Expression)
	field := f.Path.String()
	if o.GetKind() == "Secret" {
		p := problem(validators.ProblemBuildFailed, at, "variable substitution fails in %s of %s: %v", field, o, f.Err)
		p.Fix = "Escape what is no variable as $${...}, or " + disableSubstitution
		k.report(p)
		return
	}
	p := problem(validators.ProblemBuildFailed, at, "variable substitution fails at %s in %s of %s: %v", f.Expression, field, o, f.Err)
	p.Name = f.Expression
	p.Fix = fmt.Sprintf("Write $%s if it is no variable, or %s", f.Expression, disableSubstitution)
	k.report(p)
}

// disableSubstitution ends the fixes of failed substitutions.
const disableSubstitution = "exclude the object from substitution with the annotation kustomize.toolkit.fluxcd.io/substitute: disabled."

// decrypt does to an encrypted object what is possible without its key: it removes what SOPS has added.
func (k *Kustomization) decrypt(o *Object) {
	if !unresolved.IsEncryptedObject(o.Object) {
		return
	}
	o.Encrypted = true
	if strings.EqualFold(o.GetAnnotations()[decryptKey], "disabled") {
		return
	}
	if k.Spec.Decryption == nil {
		if k.Object.Origin.Synthesized {
			return // what creates it may set the field
		}
		k.report(problem(validators.ProblemDecryptionMissing, o.Locate(validators.NewPath("sops")).Position,
			"%s is encrypted with SOPS, but the Kustomization %s has no spec.decryption", o, k.Key))
		return
	}
	decrypted := make(map[string]any, len(o.Object))
	for key, value := range o.Object {
		if key != "sops" {
			decrypted[key] = value
		}
	}
	o.Object = decrypted
}
