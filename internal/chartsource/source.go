package chartsource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
)

// sourceGroup is the API group of Flux's sources.
const sourceGroup = "source.toolkit.fluxcd.io"

// artifactTimeout bounds reading from source-controller when the source itself can be asked instead. Flux's network policies let only its own
// namespace reach source-controller, and a connection that is dropped hangs.
const artifactTimeout = time.Second

// source is where one chart is read from, with all that is needed to read it.
type source interface {
	fmt.Stringer
	// kind is the kind of the Flux source.
	kind() string
	// key identifies the source, its credentials and what is asked of it.
	key() string
	// revision changes when the source is known to have something new; empty when that is only known by asking.
	revision() string
	// load reads the chart. The error wraps errAbsent when the source certainly does not have it.
	load(ctx context.Context, r *Resolver) (*Chart, error)
}

var (
	errAbsent = errors.New("the chart does not exist")
	errNoURL  = errors.New("it has no URL")
)

// source finds out where a reference's chart is to be read. Absent means that the Flux source does not exist.
func (r *Resolver) source(ctx context.Context, objects validators.Lookup, ref validators.ChartRef) (source, validators.Presence, error) {
	key := types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.Source.Name}
	if r.opts.NoCrossNamespace && ref.ReleaseNamespace != "" && ref.Source.Namespace != ref.ReleaseNamespace {
		return nil, validators.Unknown, fmt.Errorf("%s %s is in another namespace, and cross-namespace references are blocked", ref.Source.Kind, key)
	}
	make, ok := map[string]func(context.Context, validators.Lookup, *unstructured.Unstructured, validators.ChartRef) (source, error){
		"HelmRepository":   newHelmRepository,
		"OCIRepository":    newOCIRepository,
		"GitRepository":    newTree,
		"Bucket":           newTree,
		"ExternalArtifact": newTree,
		"HelmChart":        r.newHelmChart,
	}[ref.Source.Kind]
	if !ok || ref.Source.Group != sourceGroup {
		return nil, validators.Unknown, fmt.Errorf("sources of kind %s are not read", ref.Source.Kind)
	}
	obj, presence, err := objects.Get(ctx, schema.GroupKind{Group: ref.Source.Group, Kind: ref.Source.Kind}, key)
	if presence != validators.Present {
		return nil, presence, err
	}
	src, err := make(ctx, objects, obj, ref)
	if errors.Is(err, errAbsent) {
		return nil, validators.Absent, nil
	}
	if err != nil {
		return nil, validators.Unknown, fmt.Errorf("%s %s: %w", ref.Source.Kind, key, err)
	}
	if ref.Chart != "" && ref.ReleaseName != "" {
		src = r.packaged(ctx, objects, ref, src)
	}
	return src, validators.Present, nil
}

// packaged puts the artifact of the HelmChart that Flux keeps for the release before its source: it is what Flux installs. It counts only
// when it was made for just this reference.
func (r *Resolver) packaged(ctx context.Context, objects validators.Lookup, ref validators.ChartRef, src source) source {
	key := types.NamespacedName{Namespace: ref.Source.Namespace, Name: ref.ReleaseNamespace + "-" + ref.ReleaseName}
	obj, presence, _ := objects.Get(ctx, schema.GroupKind{Group: sourceGroup, Kind: "HelmChart"}, key)
	if presence != validators.Present {
		return src
	}
	made, err := helmChartRef(obj)
	if err != nil || made.Source != ref.Source || made.Chart != ref.Chart || anyVersion(made.Version) != anyVersion(ref.Version) ||
		!slices.Equal(made.ValuesFiles, ref.ValuesFiles) || made.IgnoreMissingValuesFiles != ref.IgnoreMissingValuesFiles {
		return src
	}
	a, ok := artifactOf(obj)
	if !ok {
		return src
	}
	return &chain{first: &packagedChart{artifact: a, name: "HelmChart " + key.String()}, then: src}
}

func anyVersion(v string) string {
	if v == "" {
		return "*"
	}
	return v
}

// newHelmChart is the chart of a HelmChart object: its artifact, or what it is made of.
func (r *Resolver) newHelmChart(ctx context.Context, objects validators.Lookup, obj *unstructured.Unstructured, _ validators.ChartRef) (source, error) {
	of, err := helmChartRef(obj)
	if err != nil {
		return nil, err
	}
	if of.Source.Kind == "HelmChart" {
		return nil, errors.New("a HelmChart is not made of another")
	}
	src, presence, err := r.source(ctx, objects, of)
	if presence == validators.Absent {
		err = fmt.Errorf("%w: its %s %s/%s is not there", errAbsent, of.Source.Kind, of.Source.Namespace, of.Source.Name)
	}
	a, ok := artifactOf(obj)
	switch {
	case !ok:
		return src, err
	case err != nil:
		return &packagedChart{artifact: a, name: fmt.Sprintf("HelmChart %s/%s", obj.GetNamespace(), obj.GetName())}, nil
	}
	return &chain{first: &packagedChart{artifact: a, name: fmt.Sprintf("HelmChart %s/%s", obj.GetNamespace(), obj.GetName())}, then: src}, nil
}

// helmChartRef is the reference that a HelmChart object stands for.
func helmChartRef(obj *unstructured.Unstructured) (validators.ChartRef, error) {
	spec, ok, _ := unstructured.NestedMap(obj.Object, "spec")
	ref, ok2, _ := unstructured.NestedStringMap(spec, "sourceRef")
	if !ok || !ok2 {
		return validators.ChartRef{}, errors.New("it names no source")
	}
	out := validators.ChartRef{
		Source:           validators.ObjectRef{Group: sourceGroup, Kind: ref["kind"], Namespace: obj.GetNamespace(), Name: ref["name"]},
		ReleaseNamespace: obj.GetNamespace(),
	}
	out.Chart, _, _ = unstructured.NestedString(spec, "chart")
	out.Version, _, _ = unstructured.NestedString(spec, "version")
	out.ValuesFiles, _, _ = unstructured.NestedStringSlice(spec, "valuesFiles")
	out.IgnoreMissingValuesFiles, _, _ = unstructured.NestedBool(spec, "ignoreMissingValuesFiles")
	return out, nil
}

// chain is a source that is read from source-controller where that can be reached, and else from where source-controller has it.
type chain struct {
	first, then source
}

func (c *chain) String() string   { return c.then.String() }
func (c *chain) kind() string     { return c.then.kind() }
func (c *chain) key() string      { return join(c.first.key(), c.then.key()) }
func (c *chain) revision() string { return c.first.revision() + c.then.revision() }

func (c *chain) load(ctx context.Context, r *Resolver) (*Chart, error) {
	// What fails once is passed over for a while: every review would wait for it.
	host := c.first.key()
	if !r.isOut(host) {
		limited, cancel := context.WithTimeout(ctx, artifactTimeout)
		chart, err := c.first.load(limited, r)
		cancel()
		if err == nil {
			return chart, nil
		}
		r.out(host)
		r.opts.Log.V(1).Info("the artifact could not be read; the source is asked instead", "source", c.String(), "reason", err.Error())
	}
	return c.then.load(ctx, r)
}

// isOut tells whether reading from a place failed a short time ago.
func (r *Resolver) isOut(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.outages[key]
	return ok && r.opts.Clock().Before(until)
}

// out remembers that reading from a place has failed.
func (r *Resolver) out(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.outages) >= maxEntries {
		clear(r.outages)
	}
	r.outages[key] = r.opts.Clock().Add(r.opts.Remember)
}

func join(parts ...string) string { return strings.Join(parts, "\x00") }
