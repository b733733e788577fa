package chartsource

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flux-admission/flux-admission/internal/boundedregexp"
	"github.com/flux-admission/flux-admission/internal/chartsource/fetch"
	"github.com/flux-admission/flux-admission/internal/chartsource/registry"
	"github.com/flux-admission/flux-admission/internal/chartsource/repository"
	"github.com/flux-admission/flux-admission/validators"
)

// ociChart is a chart in an OCI registry: of a HelmRepository of type oci, or of an OCIRepository.
type ociChart struct {
	ref         validators.ChartRef
	url         string
	insecure    bool
	credentials fetch.Credentials
	fingerprint string
	// selectRef returns the tag or digest of the chart.
	selectRef func(ctx context.Context, r *registry.Repository) (string, error)
	// criterion is what selectRef selects by, for the key and for messages.
	criterion string
	// mediaType is that of the chart's layer; empty for Helm's.
	mediaType string
}

func (o *ociChart) kind() string     { return o.ref.Source.Kind }
func (o *ociChart) revision() string { return "" }
func (o *ociChart) tenant() tenant   { return tenantOf(o.ref, o.url, o.credentials) }

func (o *ociChart) String() string {
	name, s := o.url[strings.LastIndex(o.url, "/")+1:], o.ref.Source
	return fmt.Sprintf("chart %s %s of %s %s/%s", name, o.criterion, s.Kind, s.Namespace, s.Name)
}

// repositoryKey identifies the repository with its credentials.
func (o *ociChart) repositoryKey() string {
	s := o.ref.Source
	return join(s.Kind, s.Namespace, s.Name, o.url, fmt.Sprint(o.insecure), o.fingerprint)
}

func (o *ociChart) key() string {
	return join(o.repositoryKey(), o.criterion, o.mediaType, valuesKey(o.ref))
}

func (o *ociChart) load(ctx context.Context, l *loader) (*cachedChart, error) {
	return l.fromHost(o.tenant(), func() (*cachedChart, error) { return o.fetch(ctx, l) })
}

func (o *ociChart) fetch(ctx context.Context, l *loader) (*cachedChart, error) {
	repo, err := registry.Open(o.url, o.credentials, o.insecure, l.opts.AllowLoopback)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	reference, err := o.selectRef(ctx, repo)
	if err != nil {
		return nil, absentIfNotFound(err)
	}
	layer, err := repo.Layer(ctx, reference, o.mediaType)
	if err != nil {
		return nil, absentIfNotFound(err)
	}
	if layer.Digest != "" {
		if c := l.served(o.repositoryKey(), cacheKey(layer.Digest, o.ref)); c != nil {
			return c, nil
		}
	}
	data, err := repo.Pull(ctx, layer, repository.MaxChartBytes)
	if err != nil {
		return nil, err
	}
	c, err := l.fromArchive(ctx, data, layer.Digest, o.ref)
	return l.serve(o.repositoryKey(), c, err)
}

// absentIfNotFound makes the registry's error for what it does not have an errAbsent.
func absentIfNotFound(err error) error {
	if errors.Is(err, registry.ErrNotFound) {
		return fmt.Errorf("%w: %w", errAbsent, err)
	}
	return err
}

// newHelmRepositoryOCI returns a chart of a HelmRepository of type oci.
func newHelmRepositoryOCI(ctx context.Context, objects validators.Lookup, obj *unstructured.Unstructured, ref validators.ChartRef, url string) (source, error) {
	o, err := newOCIChart(ctx, objects, obj, ref, strings.TrimSuffix(url, "/")+"/"+ref.Chart)
	if err != nil {
		return nil, err
	}
	o.criterion = anyVersion(ref.Version)
	o.selectRef = func(ctx context.Context, r *registry.Repository) (string, error) { return r.Tag(ctx, ref.Version) }
	return o, nil
}

func newOCIChart(ctx context.Context, objects validators.Lookup, obj *unstructured.Unstructured, ref validators.ChartRef, url string) (*ociChart, error) {
	c, fingerprint, err := credentials(ctx, objects, obj, url)
	if err != nil {
		return nil, err
	}
	o := &ociChart{ref: ref, url: url, credentials: c, fingerprint: fingerprint}
	o.insecure, _, _ = unstructured.NestedBool(obj.Object, "spec", "insecure")
	return o, nil
}

// newOCIRepository returns the chart of an OCIRepository: its artifact, with the registry as fallback.
func newOCIRepository(ctx context.Context, objects validators.Lookup, obj *unstructured.Unstructured, ref validators.ChartRef) (source, error) {
	url, _, _ := unstructured.NestedString(obj.Object, "spec", "url")
	if url == "" {
		return nil, errNoURL
	}
	// Flux has no values files with a chartRef.
	ref.ValuesFiles, ref.IgnoreMissingValuesFiles = nil, false
	o, err := newOCIChart(ctx, objects, obj, ref, url)
	if err == nil {
		o.mediaType, _, _ = unstructured.NestedString(obj.Object, "spec", "layerSelector", "mediaType")
		ref, _, _ := unstructured.NestedStringMap(obj.Object, "spec", "ref")
		err = o.selectBy(ref)
	}
	return preferArtifact(obj, o, err)
}

// selectBy sets how the tag or digest is selected from spec.ref, as source-controller does: by its digest, else its
// semver range, else its tag, else "latest".
func (o *ociChart) selectBy(ref map[string]string) error {
	fixed := func(reference string) {
		o.criterion = reference
		o.selectRef = func(context.Context, *registry.Repository) (string, error) { return reference, nil }
	}
	switch {
	case ref["digest"] != "":
		fixed(ref["digest"])
	case ref["semver"] != "":
		filter, err := boundedregexp.Compile(ref["semverFilter"])
		if errors.Is(err, boundedregexp.ErrTooComplex) {
			return fmt.Errorf("spec.ref.semverFilter: %w", err)
		}
		if err != nil {
			return errors.New("spec.ref.semverFilter is not a regular expression")
		}
		o.criterion = ref["semver"]
		if ref["semverFilter"] != "" {
			o.criterion += " filtered by " + ref["semverFilter"]
		}
		o.selectRef = func(ctx context.Context, r *registry.Repository) (string, error) {
			return r.Latest(ctx, ref["semver"], filterTags(ctx, filter))
		}
	case ref["tag"] != "":
		fixed(ref["tag"])
	default:
		fixed("latest")
	}
	return nil
}

// filterTags returns a function that reports whether a tag matches a semverFilter. All tags together have the limit of
// one match.
func filterTags(ctx context.Context, filter *boundedregexp.Regexp) func(tag string) (bool, error) {
	var work int64
	return func(tag string) (bool, error) {
		if work += filter.Work(tag); work > boundedregexp.MaxWork {
			return false, fmt.Errorf("spec.ref.semverFilter is too complex for the number of tags: %w", boundedregexp.ErrTooComplex)
		}
		return filter.Match(ctx, tag)
	}
}
