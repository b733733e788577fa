// Package cnpg holds the rules on CloudNativePG objects, wherever they are carried.
package cnpg

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/boundedregexp"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// clusterGroup is the API group of CloudNativePG.
const clusterGroup = "postgresql.cnpg.io"

// Cluster is CloudNativePG's kind of a PostgreSQL cluster.
var Cluster = schema.GroupKind{Group: clusterGroup, Kind: "Cluster"}

// maxEmbedded limits an embedded manifest that is parsed, in bytes. Objects in etcd are smaller.
const maxEmbedded = 1 << 20

// MonitoringEnabled is the rule cnpg-monitoring-enabled.
//
// A strict write with this field is rejected; every other write drops it silently, before any webhook is called, so
// the mistake remains visible only where it is kept as text. Therefore the rule checks the object itself, kubectl's
// last-applied annotation, and the patches and raw manifests in Flux objects.
//
// Values of CloudNativePG's own Helm chart are not reported: cluster.monitoring.enabled is a valid value there.
var MonitoringEnabled = &validators.Rule{
	Meta: validators.Meta{
		ID:       "PG001",
		Name:     "cnpg-monitoring-enabled",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{Cluster, flux.Kustomization, flux.HelmRelease}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "CloudNativePG Cluster has no field monitoring.enabled",
			Why: "The Cluster CRD has no field spec.monitoring.enabled. Flux's server-side apply fails on it, and " +
				"everything that depends on the Kustomization waits; a write without strict validation drops the " +
				"field, and the database is not monitored although its manifest enables it.",
			Fix: "Remove spec.monitoring.enabled. Create your own PodMonitor for the Cluster; " +
				"spec.monitoring.enablePodMonitor: true creates one too, but is deprecated in newer " +
				"CloudNativePG.",
			Since: "v0.1.0",
		},
		Supersedes: []string{"unknown-field"},
	},
	Check: checkMonitoringEnabled,
}

var (
	enabledPath    = validators.NewPath("spec", "monitoring", "enabled")
	lastApplied    = validators.NewPath("metadata", "annotations", lastAppliedKey)
	lastAppliedKey = "kubectl.kubernetes.io/last-applied-configuration"
)

func checkMonitoringEnabled(ctx context.Context, p *validators.Pass) error {
	switch p.Object.GroupVersionKind().GroupKind() {
	case Cluster:
		checkCluster(p)
	case flux.Kustomization:
		checkPatches(ctx, p, validators.NewPath("spec", "patches"))
	case flux.HelmRelease:
		renderers, _ := nested(p.Object.Object, "spec", "postRenderers").([]any)
		for i, r := range renderers {
			if _, ok := nested(r, "kustomize", "patches").([]any); ok {
				checkPatches(ctx, p, validators.NewPath("spec", "postRenderers").Index(i).Child("kustomize", "patches"))
			}
		}
		checkRawManifests(p, validators.NewTrail("spec", "values"), nested(p.Object.Object, "spec", "values"))
	}
	return nil
}

func checkCluster(p *validators.Pass) {
	if v, ok := enabled(p.Object.Object); ok {
		f := p.Report(enabledPath, v, "spec.monitoring.enabled is not a field of a CloudNativePG Cluster")
		f.Edits = []validators.Edit{{Op: validators.EditRemove, Path: enabledPath}}
		return
	}
	text, ok := nested(p.Object.Object, "metadata", "annotations", lastAppliedKey).(string)
	if !ok || !strings.Contains(text, "enabled") {
		return
	}
	var applied map[string]any
	if err := json.Unmarshal([]byte(text), &applied); err != nil {
		p.Unknown("annotation %s is not JSON, so the manifest that kubectl applied was not checked", lastAppliedKey)
		return
	}
	if v, ok := enabled(applied); ok {
		p.Report(
			lastApplied,
			v,
			"the manifest that kubectl applied sets spec.monitoring.enabled, which is not a field of a CloudNativePG Cluster; "+
				"the API server dropped it",
		)
	}
}

// patch is one entry of a list of kustomize patches.
type patch struct {
	text   string
	target map[string]any
}

func checkPatches(ctx context.Context, p *validators.Pass, at validators.Path) {
	list, _ := at.Lookup(p.Object.Object).([]any)
	for i, item := range list {
		entry, _ := item.(map[string]any)
		text, _ := entry["patch"].(string)
		// Skip the many patches that do not contain the names of the fields.
		if !strings.Contains(text, "monitoring") && !strings.Contains(text, `/spec`) || !strings.Contains(text, "enabled") {
			continue
		}
		where := at.Index(i).Child("patch")
		if len(text) > maxEmbedded {
			p.Unknown("%s is larger than %d bytes and was not checked", where, maxEmbedded)
			continue
		}
		target, _ := entry["target"].(map[string]any)
		v, found, err := patch{text: text, target: target}.setsEnabled(ctx)
		if errors.Is(err, errTarget) {
			p.Unknown("cannot determine whether %s applies to a CloudNativePG Cluster: %v", where, err)
			continue
		}
		if err != nil {
			p.Unknown("cannot parse %s: %v", where, err)
			continue
		}
		if found {
			p.Report(where, v, "the patch sets spec.monitoring.enabled, which is not a field of a CloudNativePG Cluster")
		}
	}
}

// errTarget is the error of a patch whose target cannot be evaluated.
var errTarget = errors.New("its target cannot be evaluated")

// setsEnabled reports whether the patch sets spec.monitoring.enabled of a CNPG Cluster, and returns the value.
func (pt patch) setsEnabled(ctx context.Context) (value any, found bool, err error) {
	docs, err := decodeYAML(pt.text)
	if err != nil {
		return nil, false, err
	}
	for _, doc := range docs {
		switch d := doc.(type) {
		case []any: // JSON Patch (RFC 6902)
			selected, err := pt.targetsCluster(ctx)
			if err != nil {
				return nil, false, err
			}
			if !selected {
				continue
			}
			for _, op := range d {
				if v, ok := operationSetsEnabled(op); ok {
					return v, true, nil
				}
			}
		case map[string]any: // strategic merge
			// The target's kind takes precedence over the kind in the body.
			selected := isCluster(d)
			// In a merge patch null removes the field.
			v, ok := enabled(d)
			if !ok || v == nil {
				continue
			}
			if kind, _ := pt.target["kind"].(string); kind != "" {
				if selected, err = pt.targetsCluster(ctx); err != nil {
					return nil, false, err
				}
			}
			if selected {
				return v, true, nil
			}
		}
	}
	return nil, false, nil
}

// targetsCluster reports whether the patch's target selects CNPG Clusters by kind. kustomize matches group and kind as
// regular expressions against the whole name. A target without a group selects every kind of that name.
func (pt patch) targetsCluster(ctx context.Context) (bool, error) {
	kind, _ := pt.target["kind"].(string)
	group, _ := pt.target["group"].(string)
	if kind == "" {
		return false, nil
	}
	if selected, err := wholeMatch(ctx, kind, Cluster.Kind); !selected || group == "" {
		return selected, err
	}
	return wholeMatch(ctx, group, clusterGroup)
}

// wholeMatch reports whether an expression matches a whole name. An invalid one, which kustomize rejects, does not. The
// error wraps errTarget for an expression that is too complex.
func wholeMatch(ctx context.Context, expr, s string) (bool, error) {
	if expr == s {
		return true, nil
	}
	re, err := boundedregexp.Compile("^(?:" + expr + ")$")
	if errors.Is(err, boundedregexp.ErrTooComplex) {
		return false, fmt.Errorf("%w: %w", errTarget, err)
	}
	if err != nil {
		return false, nil //nolint:nilerr // no build with the patch succeeds
	}
	matched, err := re.Match(ctx, s)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errTarget, err)
	}
	return matched, nil
}

func operationSetsEnabled(op any) (any, bool) {
	o, _ := op.(map[string]any)
	name, _ := o["op"].(string)
	path, _ := o["path"].(string)
	switch name {
	case "add", "replace":
	case "copy", "move":
		return nil, path == "/spec/monitoring/enabled"
	default:
		return nil, false
	}
	switch path {
	case "/spec/monitoring/enabled":
		return o["value"], true
	case "/spec/monitoring":
		v, ok := nestedOK(o["value"], "enabled")
		return v, ok
	case "/spec":
		v, ok := nestedOK(o["value"], "monitoring", "enabled")
		return v, ok
	case "", "/":
		return enabled(o["value"])
	}
	return nil, false
}

// checkRawManifests finds Cluster manifests in Helm values, where charts take them in extraObjects, rawResources and
// similar keys. Findings are sorted, so that keys need not be.
func checkRawManifests(p *validators.Pass, at *validators.Trail, v any) {
	switch t := v.(type) {
	case map[string]any:
		if isCluster(t) {
			if val, ok := enabled(t); ok {
				where := at.Path().Child(enabledKeys...)
				f := p.Report(
					where,
					val,
					"the manifest of a CloudNativePG Cluster in the values sets spec.monitoring.enabled, which is not a field of a Cluster",
				)
				f.Edits = []validators.Edit{{Op: validators.EditRemove, Path: where}}
			}
			return
		}
		for k, e := range t {
			at.EnterKey(k)
			checkRawManifests(p, at, e)
			at.Leave()
		}
	case []any:
		for i, e := range t {
			at.EnterIndex(i)
			checkRawManifests(p, at, e)
			at.Leave()
		}
	case string:
		if !strings.Contains(t, clusterGroup) || !strings.Contains(t, "enabled") || len(t) > maxEmbedded {
			return
		}
		docs, err := decodeYAML(t)
		if err != nil {
			return // a template, or no manifest
		}
		for _, doc := range docs {
			if m, ok := doc.(map[string]any); ok && isCluster(m) {
				if val, found := enabled(m); found {
					p.Report(
						at.Path(),
						val,
						"the manifest of a CloudNativePG Cluster in the values sets spec.monitoring.enabled, which is not a field of a Cluster",
					)
				}
			}
		}
	}
}

func isCluster(o map[string]any) bool {
	if kind, _ := o["kind"].(string); kind != Cluster.Kind {
		return false
	}
	apiVersion, _ := o["apiVersion"].(string)
	group, _, hasGroup := strings.Cut(apiVersion, "/")
	return hasGroup && group == clusterGroup
}

var enabledKeys = []string{"spec", "monitoring", "enabled"}

func enabled(o any) (any, bool) { return nestedOK(o, enabledKeys...) }

func nested(o any, keys ...string) any {
	v, _ := nestedOK(o, keys...)
	return v
}

// nestedOK is unstructured.NestedFieldNoCopy for a root of any type.
func nestedOK(o any, keys ...string) (any, bool) {
	m, ok := o.(map[string]any)
	if !ok {
		return nil, false
	}
	v, ok, err := unstructured.NestedFieldNoCopy(m, keys...)
	return v, ok && err == nil
}

// decodeYAML decodes the documents of a YAML or JSON text. Its errors do not quote the text, which may contain a
// secret.
func decodeYAML(text string) ([]any, error) {
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(text)), 4096)
	var docs []any
	for {
		var doc any
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d is not YAML", len(docs)+1)
		}
		docs = append(docs, doc)
	}
}
