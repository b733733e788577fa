package helmchart

import (
	"context"
	"crypto/sha256"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/flux-admission/flux-admission/internal/helmchart/schema"
	"github.com/flux-admission/flux-admission/validators"
)

// compiledSchema is one schema document, or the error of compiling it.
type compiledSchema struct {
	schema *schema.Schema
	err    error
}

// schemas are the compiled schemas of a chart and its subcharts.
type schemas struct {
	// byDocument finds a schema by the address of the document's first byte: Helm copies subcharts whenever it composes
	// values, and the copies share the documents.
	byDocument map[*byte]*compiledSchema
	byChart    map[string]*compiledSchema
	// bySum compiles equal documents once.
	bySum map[[sha256.Size]byte]*compiledSchema
}

func newSchemas() *schemas {
	return &schemas{
		byDocument: map[*byte]*compiledSchema{}, byChart: map[string]*compiledSchema{}, bySum: map[[sha256.Size]byte]*compiledSchema{},
	}
}

// compile compiles the schema of a chart, whose document it replaces by a single byte, and returns the memory of it.
func (s *schemas) compile(c *chart.Chart, load schema.Load) int64 {
	if len(c.Schema) == 0 {
		return 0
	}
	var memory int64
	sum := sha256.Sum256(c.Schema)
	compiled := s.bySum[sum]
	if compiled == nil {
		compiled = &compiledSchema{}
		if compiled.schema, compiled.err = schema.Compile(c.Schema, load); compiled.err == nil {
			memory = compiled.schema.Cost()
		}
		s.bySum[sum] = compiled
	}
	c.Schema = []byte{' '}
	s.byDocument[&c.Schema[0]], s.byChart[c.Name()] = compiled, compiled
	return memory
}

// of returns the schema of a chart, or of a copy of it; nil when it has none.
func (s *schemas) of(c *chart.Chart) *compiledSchema {
	if len(c.Schema) == 0 {
		return nil
	}
	return s.byDocument[&c.Schema[0]]
}

// knower returns a function that reports whether the schema of the named chart defines or rejects the field at a path.
// Its calls end with the context and share the limits of one evaluation. A schema that was not loaded may define any
// field, unless loadedOnly.
func (s *schemas) knower(ctx context.Context, loadedOnly bool) func(name string, path validators.Path) bool {
	k := schema.NewKnower(ctx)
	k.LoadedOnly = loadedOnly
	return func(name string, path validators.Path) bool {
		c := s.byChart[name]
		return c != nil && (c.err != nil || k.Knows(c.schema, path))
	}
}
