package kustomization

import (
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/internal/yamlposition"
	"github.com/flux-admission/flux-admission/validators"
)

// Written returns the text of a scalar as it is in Git, before variables are substituted: in the object's own file, or
// in the patch that sets it. A variable that is the whole text is replaced by its value. It is empty when the text is
// not known.
func (o *Object) Written(p validators.Path) string {
	doc, value := o.document(), p.Lookup(o.Object)
	if doc != nil {
		if _, node, found := yamlposition.Match(doc, o.Object, p); found && node.Kind == yaml.ScalarNode {
			var decoded any
			if err := node.Decode(&decoded); err == nil && fmt.Sprint(decoded) == fmt.Sprint(value) || unresolved.HasVariable(node.Value) {
				return node.Value
			}
		}
	}
	at := o.Locate(p)
	if at.Role != build.RolePatch || at.Line == 0 || o.artifact == nil {
		return ""
	}
	f := o.artifact.FileNamed(at.File)
	if f == nil {
		return ""
	}
	text, err := f.Content()
	if err != nil {
		return ""
	}
	lines := strings.Split(string(text), "\n")
	if at.Line > len(lines) || at.Column > len(lines[at.Line-1]) {
		return ""
	}
	m := entry.FindStringSubmatch(lines[at.Line-1][max(at.Column-1, 0):])
	if m == nil || strings.Trim(m[1], `"'`) != p[len(p)-1].Key {
		return ""
	}
	return strings.Trim(m[2], `"'`)
}

// entry matches a key of a mapping with a scalar in the same line.
var entry = regexp.MustCompile(`^([^\s:{}\[\],]+)\s*:\s+("[^"]*"|'[^']*'|[^\s,{}\[\]#]+)`)
