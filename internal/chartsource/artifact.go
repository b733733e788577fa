package chartsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/fluxcd/pkg/chartutil"
	"github.com/opencontainers/go-digest"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// maxArtifact bounds the archive of a whole source, in bytes.
const maxArtifact = 64 << 20

// artifact is what source-controller serves for a source.
type artifact struct {
	url    string
	digest digest.Digest
}

// artifactOf returns the artifact in an object's status; false when there is none, or none yet for the object as it stands.
func artifactOf(obj *unstructured.Unstructured) (artifact, bool) {
	a, ok, _ := unstructured.NestedMap(obj.Object, "status", "artifact")
	if !ok {
		return artifact{}, false
	}
	seen, counted, _ := unstructured.NestedInt64(obj.Object, "status", "observedGeneration")
	if counted && obj.GetGeneration() != 0 && seen != obj.GetGeneration() {
		return artifact{}, false
	}
	url, _, _ := unstructured.NestedString(a, "url")
	sum, _, _ := unstructured.NestedString(a, "digest")
	d, err := digest.Parse(sum)
	return artifact{url: url, digest: d}, url != "" && err == nil
}

// fetch reads the artifact and checks its digest.
func (a artifact) fetch(ctx context.Context, r *Resolver, limit int64) ([]byte, error) {
	client, err := fetch.NewClient(a.url, fetch.Credentials{}, r.opts.AllowLocal)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	data, err := client.Get(ctx, a.url, limit)
	if err != nil {
		return nil, err
	}
	if actual := a.digest.Algorithm().FromBytes(data); actual != a.digest {
		return nil, fmt.Errorf("the artifact's digest is %s, and %s was promised", actual, a.digest)
	}
	return data, nil
}

// packagedChart is a chart that source-controller has packaged, values files merged.
type packagedChart struct {
	artifact
	name string
}

func (p *packagedChart) String() string   { return p.name }
func (p *packagedChart) kind() string     { return "HelmChart" }
func (p *packagedChart) key() string      { return join("artifact", p.name) }
func (p *packagedChart) revision() string { return p.digest.String() }

func (p *packagedChart) load(ctx context.Context, r *Resolver) (*Chart, error) {
	if p.digest.Algorithm() == digest.SHA256 {
		if c := r.cache.get(join(p.digest.Encoded(), valuesKey(validators.ChartRef{}))); c != nil {
			return c, nil
		}
	}
	data, err := p.fetch(ctx, r, repository.MaxChartBytes)
	if err != nil {
		return nil, err
	}
	return r.fromArchive(ctx, data, "", validators.ChartRef{})
}

// tree is a chart in the artifact of a GitRepository, a Bucket or an ExternalArtifact.
type tree struct {
	artifact
	ref validators.ChartRef
}

func newTree(_ context.Context, _ validators.Lookup, obj *unstructured.Unstructured, ref validators.ChartRef) (source, error) {
	a, ok := artifactOf(obj)
	if !ok {
		return nil, errors.New("it has no artifact yet")
	}
	return &tree{artifact: a, ref: ref}, nil
}

func (t *tree) kind() string { return t.ref.Source.Kind }

func (t *tree) String() string {
	return fmt.Sprintf("chart %s of %s %s/%s", path.Clean("/" + t.ref.Chart)[1:], t.ref.Source.Kind, t.ref.Source.Namespace, t.ref.Source.Name)
}

func (t *tree) key() string {
	return join(t.ref.Source.Kind, t.ref.Source.Namespace, t.ref.Source.Name, t.ref.Chart, valuesKey(t.ref))
}

func (t *tree) revision() string { return t.digest.String() }

func (t *tree) load(ctx context.Context, r *Resolver) (*Chart, error) {
	key := join(t.digest.String(), t.ref.Chart, valuesKey(t.ref))
	if c := r.cache.get(key); c != nil {
		return c, nil
	}
	data, err := t.fetch(ctx, r, maxArtifact)
	if err != nil {
		return nil, err
	}
	limits := archive.SourceLimits()
	limits.Whole = r.opts.Templates
	ch, files, err := archive.ReadArtifact(bytes.NewReader(data), t.ref.Chart, limits, t.ref.ValuesFiles...)
	if errors.Is(err, archive.ErrNoChart) {
		return nil, fmt.Errorf("%w: %w", errAbsent, err)
	}
	if err != nil {
		return nil, err
	}
	if err := replaceValues(ch, files, t.ref); err != nil {
		return nil, err
	}
	c := newChart(ch, r.schemaLoader(ctx), r.opts.Templates)
	c.elsewhere = notVendored(ch)
	c.cacheKey = key
	r.cache.put(key, c)
	return c, nil
}

// replaceValues merges values files in place of the chart's own values. Their paths are those in the source, not in the chart.
func replaceValues(ch *chart.Chart, files map[string][]byte, ref validators.ChartRef) error {
	merged := map[string]any{}
	for _, name := range ref.ValuesFiles {
		data, ok := files[path.Clean("/" + name)[1:]]
		if !ok {
			if ref.IgnoreMissingValuesFiles {
				continue
			}
			return fmt.Errorf("it has no values file %s", name)
		}
		values, err := readValuesFile(name, data)
		if err != nil {
			return err
		}
		merged = chartutil.MergeMaps(merged, values)
	}
	if len(merged) > 0 {
		ch.Values = merged
	}
	return nil
}

// notVendored returns the dependencies of a chart that are not beside it: source-controller fetches them when it packages the chart.
func notVendored(c *chart.Chart) []string {
	var out []string
	for _, d := range c.Metadata.Dependencies {
		if d == nil {
			continue
		}
		found := false
		for _, have := range c.Dependencies() {
			found = found || have.Name() == d.Name
		}
		if !found {
			out = append(out, d.Name)
		}
	}
	return out
}
