package kustomization

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// ExpressionInvalid is the rule flux-expression-invalid.
//
// The CRDs accept any text as an expression. kustomize-controller and helm-controller parse it when they reconcile the object,
// with cel-go, and stop with InvalidCELExpression (fluxcd/pkg/runtime/cel). Only what does not parse is reported: which
// fields an object has is not known.
var ExpressionInvalid = &validators.Rule{
	Meta: validators.Meta{
		ID:       "KS020",
		Name:     "flux-expression-invalid",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.Kustomization, flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "CEL expression does not parse",
			Why:   "The controller stops at the expression and does not try again: nothing of the object is applied.",
			Fix:   "Correct the expression at the position in the message.",
			Since: "v0.1.0",
		},
	},
	Check: checkExpressions,
}

const (
	maxExpressions = 100
	maxExpression  = 4096 // bytes; a longer expression is not parsed
)

// newParser returns a parser of CEL, which takes longer to build than an expression to parse.
var newParser = sync.OnceValues(func() (*cel.Env, error) { return cel.NewEnv() })

func checkExpressions(_ context.Context, p *validators.Pass) error {
	var found []validators.Path
	each := func(list string, fields ...string) {
		at := validators.NewPath("spec", list)
		items, _ := at.Lookup(p.Object.Object).([]any)
		for i := range items {
			for _, name := range fields {
				if _, ok := at.Index(i).Child(name).Lookup(p.Object.Object).(string); ok {
					found = append(found, at.Index(i).Child(name))
				}
			}
		}
	}
	each("dependsOn", "readyExpr")
	each("healthCheckExprs", "current", "inProgress", "failed")
	if len(found) == 0 {
		return nil
	}
	if len(found) > maxExpressions {
		p.Skip("the object has more than %d expressions", maxExpressions)
		return nil
	}
	env, err := newParser()
	if err != nil {
		return fmt.Errorf("preparing the parser of expressions: %w", err)
	}
	for _, at := range found {
		text, _ := at.Lookup(p.Object.Object).(string)
		if unresolved.String(text) || len(text) > maxExpression {
			continue
		}
		_, issues := env.Parse(text)
		if issues == nil || issues.Err() == nil {
			continue
		}
		first := issues.Errors()[0]
		p.Report(
			at, nil, "the expression does not parse at line %d, column %d: %s",
			first.Location.Line(), first.Location.Column()+1, strings.TrimPrefix(first.Message, "Syntax error: "),
		)
	}
	return nil
}
