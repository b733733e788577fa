package chartsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/opencontainers/go-digest"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
	"github.com/flux-admission/flux-admission/internal/helmchart/archive"
	"github.com/flux-admission/flux-admission/validators"
)

// maxArtifact bounds the archive of a source tree, in bytes.
const maxArtifact = 64 << 20

// artifact is an archive that source-controller serves.
type artifact struct {
	url    string
	digest digest.Digest
}

// artifactOf returns the artifact in an object's status; false when there is none, or none yet for the current
// generation.
func artifactOf(obj *unstructured.Unstructured) (artifact, bool) {
	a, ok, _ := unstructured.NestedMap(obj.Object, "status", "artifact")
	if !ok {
		return artifact{}, false
	}
	observed, ok, _ := unstructured.NestedInt64(obj.Object, "status", "observedGeneration")
	if ok && obj.GetGeneration() != 0 && observed != obj.GetGeneration() {
		return artifact{}, false
	}
	url, _, _ := unstructured.NestedString(a, "url")
	sum, _, _ := unstructured.NestedString(a, "digest")
	d, err := digest.Parse(sum)
	return artifact{url: url, digest: d}, url != "" && err == nil
}

// fetch reads the artifact and checks its digest.
func (a artifact) fetch(ctx context.Context, opts Options, limit int64) (data []byte, err error) {
	err = a.read(ctx, opts, limit, func(r io.Reader) error {
		data, err = io.ReadAll(r)
		return err
	})
	return data, err
}

// read passes the artifact to a function while it arrives, and then checks its digest. The function may stop early.
func (a artifact) read(ctx context.Context, opts Options, limit int64, read func(io.Reader) error) error {
	client, err := fetch.NewClient(a.url, fetch.Credentials{}, opts.AllowLoopback)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ReadVerified(ctx, a.url, limit, a.digest, read)
}

// chartArtifact is a packaged chart: that of a HelmChart, which source-controller has packaged with its values files
// merged, or an ExternalArtifact, which helm-controller reads as one.
type chartArtifact struct {
	artifact
	kindName  string
	name      string
	namespace string
}

func newChartArtifact(a artifact, obj *unstructured.Unstructured) *chartArtifact {
	return &chartArtifact{
		artifact: a, kindName: obj.GetKind(), namespace: obj.GetNamespace(),
		name: fmt.Sprintf("%s %s/%s", obj.GetKind(), obj.GetNamespace(), obj.GetName()),
	}
}

func newExternalArtifact(_ context.Context, _ validators.Lookup, obj *unstructured.Unstructured, _ validators.ChartRef) (source, error) {
	a, ok := artifactOf(obj)
	if !ok {
		return nil, errNoArtifact
	}
	return newChartArtifact(a, obj), nil
}

func (a *chartArtifact) String() string   { return a.name }
func (a *chartArtifact) kind() string     { return a.kindName }
func (a *chartArtifact) tenant() tenant   { return tenant{namespace: a.namespace} }
func (a *chartArtifact) key() string      { return join("artifact", a.name) }
func (a *chartArtifact) revision() string { return a.digest.String() }

func (a *chartArtifact) load(ctx context.Context, l *loader) (*cachedChart, error) {
	if a.digest.Algorithm() == digest.SHA256 {
		if c := l.served(a.key(), cacheKey(a.digest.Encoded(), validators.ChartRef{})); c != nil {
			return c, nil
		}
	}
	data, err := a.fetch(ctx, l.opts, repository.MaxChartBytes)
	if err != nil {
		return nil, err
	}
	c, err := l.fromArchive(ctx, data, "", validators.ChartRef{})
	return l.serve(a.key(), c, err)
}

// preferArtifact returns the artifact of an object, with the object's source as fallback. The error is that of finding
// the source; it does not matter when there is an artifact.
func preferArtifact(obj *unstructured.Unstructured, src source, err error) (source, error) {
	a, ok := artifactOf(obj)
	if !ok {
		return src, err
	}
	first := newChartArtifact(a, obj)
	if err != nil {
		return first, nil
	}
	return &withFallback{artifact: first, fallback: src}, nil
}

// errNoArtifact means that the controller of a source has not made its artifact.
var errNoArtifact = errors.New("it has no artifact yet")

// tree is a chart in the artifact of a GitRepository or a Bucket.
type tree struct {
	artifact
	ref validators.ChartRef
}

func newTree(_ context.Context, _ validators.Lookup, obj *unstructured.Unstructured, ref validators.ChartRef) (source, error) {
	a, ok := artifactOf(obj)
	if !ok {
		return nil, errNoArtifact
	}
	return &tree{artifact: a, ref: ref}, nil
}

func (t *tree) kind() string   { return t.ref.Source.Kind }
func (t *tree) tenant() tenant { return tenant{namespace: t.ref.Source.Namespace} }

func (t *tree) String() string {
	return fmt.Sprintf("chart %s of %s %s/%s", path.Clean("/" + t.ref.Chart)[1:], t.ref.Source.Kind, t.ref.Source.Namespace, t.ref.Source.Name)
}

func (t *tree) key() string {
	return join(t.ref.Source.Kind, t.ref.Source.Namespace, t.ref.Source.Name, t.ref.Chart, valuesKey(t.ref))
}

func (t *tree) revision() string { return t.digest.String() }

func (t *tree) load(ctx context.Context, l *loader) (*cachedChart, error) {
	key := join(t.digest.String(), t.ref.Chart, valuesKey(t.ref))
	if c := l.served(t.key(), key); c != nil {
		return c, nil
	}
	// Only the chart's files are held, so that the artifacts which arrive at the same time do not take their size each.
	var files *archive.Artifact
	err := t.read(ctx, l.opts, maxArtifact, func(r io.Reader) (err error) {
		files, err = archive.OpenArtifact(r, t.ref.Chart, l.opts.Limits.OfSource(), t.ref.ValuesFiles...)
		return err
	})
	if err != nil {
		return nil, err
	}
	c, err := l.fromTree(ctx, key, files, t.ref)
	c, err = l.serve(t.key(), c, err)
	if errors.Is(err, archive.ErrNoChart) {
		return nil, fmt.Errorf("%w: %w", errAbsent, err)
	}
	return c, err
}
