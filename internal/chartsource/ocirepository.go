package chartsource

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

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
	// choose returns the tag or digest.
	choose func(ctx context.Context, r *registry.Repository) (string, error)
	// wanted is what choose chooses by, for the key and for messages.
	wanted string
	// mediaType is that of the chart's layer; empty for Helm's.
	mediaType string
}

func (o *ociChart) kind() string     { return o.ref.Source.Kind }
func (o *ociChart) revision() string { return "" }

func (o *ociChart) String() string {
	return fmt.Sprintf("chart %s %s of %s %s/%s", o.url[strings.LastIndex(o.url, "/")+1:], o.wanted, o.ref.Source.Kind, o.ref.Source.Namespace, o.ref.Source.Name)
}

func (o *ociChart) key() string {
	return join(o.ref.Source.Kind, o.ref.Source.Namespace, o.ref.Source.Name, o.url, fmt.Sprint(o.insecure), o.fingerprint, o.wanted, o.mediaType, valuesKey(o.ref))
}

func (o *ociChart) load(ctx context.Context, r *Resolver) (*Chart, error) {
	repo, err := registry.Open(o.url, o.credentials, o.insecure, r.opts.AllowLocal)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	reference, err := o.choose(ctx, repo)
	if err != nil {
		return nil, absentIfNotFound(err)
	}
	layer, err := repo.Layer(ctx, reference, o.mediaType)
	if err != nil {
		return nil, absentIfNotFound(err)
	}
	if layer.Digest != "" {
		if c := r.cache.get(join(layer.Digest, valuesKey(o.ref))); c != nil {
			return c, nil
		}
	}
	data, err := repo.Pull(ctx, layer, repository.MaxChartBytes)
	if err != nil {
		return nil, err
	}
	return r.fromArchive(ctx, data, layer.Digest, o.ref)
}

func absentIfNotFound(err error) error {
	if errors.Is(err, registry.ErrNotFound) {
		return fmt.Errorf("%w: %w", errAbsent, err)
	}
	return err
}

// newHelmRepositoryOCI is a chart of a HelmRepository of type oci.
func newHelmRepositoryOCI(ctx context.Context, objects validators.Lookup, obj *unstructured.Unstructured, ref validators.ChartRef, url string) (source, error) {
	o, err := newOCIChart(ctx, objects, obj, ref, strings.TrimSuffix(url, "/")+"/"+ref.Chart)
	if err != nil {
		return nil, err
	}
	o.wanted = anyVersion(ref.Version)
	o.choose = func(ctx context.Context, r *registry.Repository) (string, error) { return r.Tag(ctx, ref.Version) }
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

// newOCIRepository is the chart of an OCIRepository: its artifact, or the registry's.
func newOCIRepository(ctx context.Context, objects validators.Lookup, obj *unstructured.Unstructured, ref validators.ChartRef) (source, error) {
	url, _, _ := unstructured.NestedString(obj.Object, "spec", "url")
	if url == "" {
		return nil, errNoURL
	}
	// Values files are not available with a chartRef.
	ref.ValuesFiles, ref.IgnoreMissingValuesFiles = nil, false
	o, err := newOCIChart(ctx, objects, obj, ref, url)
	var src source = o
	if err == nil {
		o.mediaType, _, _ = unstructured.NestedString(obj.Object, "spec", "layerSelector", "mediaType")
		want, _, _ := unstructured.NestedStringMap(obj.Object, "spec", "ref")
		err = o.chooseBy(want)
	}
	a, ok := artifactOf(obj)
	switch {
	case !ok:
		return src, err
	case err != nil:
		src = &packagedChart{artifact: a, name: fmt.Sprintf("OCIRepository %s/%s", obj.GetNamespace(), obj.GetName())}
		return src, nil
	}
	return &chain{first: &packagedChart{artifact: a, name: fmt.Sprintf("OCIRepository %s/%s", obj.GetNamespace(), obj.GetName())}, then: src}, nil
}

// chooseBy sets how the tag or digest is chosen: by digest, else by the semver range, else by the tag, else latest, as source-controller does.
func (o *ociChart) chooseBy(want map[string]string) error {
	fixed := func(reference string) {
		o.wanted = reference
		o.choose = func(context.Context, *registry.Repository) (string, error) { return reference, nil }
	}
	switch {
	case want["digest"] != "":
		fixed(want["digest"])
	case want["semver"] != "":
		filter, err := regexp.Compile(want["semverFilter"])
		if err != nil {
			return errors.New("spec.ref.semverFilter is no regular expression")
		}
		o.wanted = want["semver"]
		if want["semverFilter"] != "" {
			o.wanted += " filtered by " + want["semverFilter"]
		}
		o.choose = func(ctx context.Context, r *registry.Repository) (string, error) {
			return r.Latest(ctx, want["semver"], filter.MatchString)
		}
	case want["tag"] != "":
		fixed(want["tag"])
	default:
		fixed("latest")
	}
	return nil
}
