// Package locate finds the roots of a delivery report in a built Git tree.
package locate

import (
	"regexp"
	"strings"

	"github.com/flux-admission/flux-admission/internal/delivery"
	"github.com/flux-admission/flux-admission/internal/kustomization"
	"github.com/flux-admission/flux-admission/validators"
)

// Roots sets the source of each root that the clusters of a tree apply: the line of the field that the root is about, or
// else of the object. For an object that is missing it is the reference to it. A root that several clusters have in
// different places is left out.
func Roots(r *delivery.Report, clusters []*kustomization.Cluster) {
	l := locator{objects: map[delivery.Ref][]*kustomization.Object{}, waiting: map[delivery.Ref][]reference{}}
	for _, c := range clusters {
		for _, k := range c.Kustomizations {
			for _, o := range append([]*kustomization.Object{k.Object}, k.Objects...) {
				if o != nil && o.Unstructured != nil {
					ref := delivery.RefOf(o.Unstructured)
					l.objects[ref] = append(l.objects[ref], o)
				}
			}
		}
	}
	for _, o := range r.Objects {
		for _, e := range o.WaitsFor {
			l.waiting[e.To] = append(l.waiting[e.To], reference{o.Object, e.Evidence})
		}
	}
	for _, root := range r.Roots {
		root.Source = l.locate(root)
	}
}

type locator struct {
	objects map[delivery.Ref][]*kustomization.Object
	waiting map[delivery.Ref][]reference
}

// reference is an object that waits, and the field that has it wait.
type reference struct {
	from  delivery.Ref
	field string
}

func (l *locator) locate(root *delivery.Root) *delivery.Source {
	if s := l.position(root.Object, fieldOf(root)); s != nil {
		return s
	}
	for _, w := range l.waiting[root.Object] {
		if path := parsePath(w.field); path != nil {
			if s := l.position(w.from, path); s != nil {
				return s
			}
		}
	}
	return nil
}

// position returns where a field of an object is written; nil if that is not one place.
func (l *locator) position(ref delivery.Ref, path validators.Path) *delivery.Source {
	var found *delivery.Source
	for _, o := range l.objects[ref] {
		at := o.Locate(path)
		s := &delivery.Source{File: at.File, Line: at.Line}
		if s.File == "" || found != nil && *found != *s {
			return nil
		}
		found = s
	}
	return found
}

// invalidField is the field in the message of the API server's schemas, as in ".spec.monitoring.enabled: field not
// declared in schema".
var invalidField = regexp.MustCompile(`(?:^|[\s:])\.?((?:[A-Za-z_][\w-]*(?:\[\d+\])?\.)+[A-Za-z_][\w-]*(?:\[\d+\])?): (?:field not declared in schema|Invalid value|Required value|Unsupported value|Forbidden)`)

// fieldOf returns the field that a root is about; empty for the object.
func fieldOf(root *delivery.Root) validators.Path {
	switch root.Cause {
	case delivery.CauseSuspended:
		return validators.NewPath("spec", "suspend")
	case delivery.CauseCycle, delivery.CauseDependencyKind:
		return validators.NewPath("spec", "dependsOn")
	case delivery.CausePathMissing:
		return validators.NewPath("spec", "path")
	case delivery.CauseHealthCheckMissing:
		return validators.NewPath("spec", "healthChecks")
	case delivery.CauseSchema:
		if m := invalidField.FindStringSubmatch(root.Message); m != nil {
			return parsePath(m[1])
		}
	default:
	}
	return nil
}

// parsePath reads a field such as spec.dependsOn[0]; nil for other texts. What follows a space is not a part of it.
func parsePath(s string) validators.Path {
	s, _, _ = strings.Cut(s, " ")
	if !strings.HasPrefix(s, "spec.") && !strings.HasPrefix(s, "metadata.") {
		return nil
	}
	var path validators.Path
	for part := range strings.SplitSeq(s, ".") {
		name, rest, _ := strings.Cut(part, "[")
		path = append(path, validators.NewPath(name)...)
		for rest != "" {
			index, after, ok := strings.Cut(rest, "]")
			n := 0
			if !ok || index == "" {
				return nil
			}
			for _, digit := range index {
				if digit < '0' || digit > '9' || n > 1<<20 {
					return nil
				}
				n = n*10 + int(digit-'0')
			}
			path = path.Index(n)
			rest = strings.TrimPrefix(after, "[")
		}
	}
	return path
}
