package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/writepath"
)

// story sends the objects and compares the answers with the expected ones.
type story struct {
	env *env.Env
	out io.Writer

	steps, wrong int
}

// outcome is what becomes of a write.
type outcome int

const (
	allowed outcome = iota
	deniedByWebhook
	rejectedByAPIServer
)

var (
	kubectlApply   = writepath.Kubectl("apply")
	kubectlNoCheck = writepath.Kubectl("apply", "--validate=false")
	fluxApply      = writepath.Flux()
	clientCreate   = writepath.Create()
)

// step is one write and its expected outcome.
type step struct {
	path     writepath.Path
	manifest string
	want     outcome
	// contains are parts of the answer.
	contains []string
	// field is a field of the stored object, and stored its value, empty for none.
	field, stored string
	note          string
}

func (s *story) tell(ctx context.Context) (wrong int, err error) {
	for _, ns := range []string{"flux-system", "airflow"} {
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns}}}
		if err := s.env.Client.Create(ctx, u); err != nil && !apierrors.IsAlreadyExists(err) {
			return 0, fmt.Errorf("creating namespace %s: %w", ns, err)
		}
		if a := kubectlApply.Write(ctx, s.env.ControlPlane, fmt.Sprintf(gitRepository, ns)); a.Err != nil {
			return 0, fmt.Errorf("creating the GitRepository: %w", a.Err)
		}
	}
	if err := s.setMode(ctx, "Enforce"); err != nil {
		return 0, err
	}
	if a := kubectlApply.Write(ctx, s.env.ControlPlane, fmt.Sprintf(helmRepository, s.env.Charts.URL)); a.Err != nil {
		return 0, fmt.Errorf("creating the HelmRepository: %w", a.Err)
	}
	patched, err := writepath.Parse(clusterClean)
	if err != nil {
		return 0, err
	}
	if err := s.env.Client.Create(ctx, patched); err != nil {
		return 0, fmt.Errorf("creating the Cluster to patch: %w", err)
	}

	const noField = "spec.monitoring.enabled"
	chapters := []struct {
		title string
		mode  string
		steps []step
	}{
		{"1. A CloudNativePG Cluster with monitoring.enabled, a field that does not exist", "Enforce", []step{
			{path: kubectlApply, manifest: clusterWithMonitoring, want: rejectedByAPIServer, contains: []string{`unknown field "spec.monitoring.enabled"`},
				note: "kubectl validates strictly: the API server rejects the object before it calls a webhook"},
			{path: kubectlNoCheck, manifest: clusterWithMonitoring, want: deniedByWebhook, contains: []string{"PG001", noField, "enablePodMonitor"},
				note: "the API server dropped the field, but kubectl's last-applied annotation still holds it"},
			{path: fluxApply, manifest: clusterWithMonitoring, want: rejectedByAPIServer, contains: []string{"field not declared in schema"},
				note: "server-side apply validates strictly too"},
			{path: fluxApply, manifest: kustomizationWithClusterPatch, want: deniedByWebhook, contains: []string{"PG001", "spec.patches[0].patch"},
				note: "the same mistake carried in a Kustomization's patch: the API server sees only text there"},
			{path: clientCreate, manifest: clusterWithMonitoring, want: allowed, field: noField,
				note: "the API server prunes the field of a plain create before it calls a webhook: no webhook can see it"},
			{path: writepath.MergePatch(`{"spec":{"monitoring":{"enabled":true}}}`), manifest: clusterClean, want: allowed, field: noField,
				note: "so does a merge patch"},
		}},
		{"2. A Flux Kustomization in namespace airflow", "Enforce", []step{
			{path: kubectlApply, manifest: kustomizationInAirflow, want: deniedByWebhook, contains: []string{"KS001", `namespace "airflow" is not allowed`, "flux-system"}},
			{path: fluxApply, manifest: kustomizationInAirflow, want: deniedByWebhook, contains: []string{"KS001", "dry-run failed (Forbidden)"},
				note: "Flux's own dry-run is denied, so nothing of its stage is applied"},
		}},
		{"3. An Airflow release with values that the chart's schema rejects", "Enforce", []step{
			{path: kubectlApply, manifest: releaseRefused, want: deniedByWebhook,
				contains: []string{"HR001", "/data/metadataConnection", "existingSecret", "existingSecretKey"}, note: "both mistakes in one answer"},
			{path: fluxApply, manifest: releaseRefused, want: deniedByWebhook,
				contains: []string{"HR001", "/data/metadataConnection", "existingSecret", "existingSecretKey"}},
			{path: fluxApply, manifest: releaseRepaired, want: allowed, field: "spec.values.data.metadataSecretName", stored: "airflow-db-app",
				note: "the repaired release is allowed"},
		}},
		{"4. A Kustomization that gets its targetNamespace", "Enforce", []step{
			{path: kubectlApply, manifest: kustomizationInFluxSystem, want: allowed, field: "spec.targetNamespace", stored: "airflow",
				note: "the policy maps ./kubernetes/apps/airflow/ to namespace airflow"},
			{path: fluxApply, manifest: renamed(kustomizationInFluxSystem, "airflow-by-flux"), want: allowed, field: "spec.targetNamespace", stored: "airflow"},
			{path: fluxApply, manifest: renamed(kustomizationInFluxSystem, "airflow-by-flux"), want: allowed, contains: []string{"unchanged"},
				field: "spec.targetNamespace", stored: "airflow", note: "Flux applies it again: no drift"},
		}},
		{"5. The same in audit-only mode: nothing is denied, everything is recorded", "AuditOnly", []step{
			{path: kubectlNoCheck, manifest: renamed(clusterWithMonitoring, "audited-db"), want: allowed, field: noField,
				note: "recorded; the field was pruned by the API server"},
			{path: kubectlApply, manifest: kustomizationInAirflow, want: allowed, field: "metadata.namespace", stored: "airflow", note: "recorded"},
			{path: fluxApply, manifest: renamed(kustomizationInAirflow, "airflow-by-flux"), want: allowed, field: "metadata.namespace", stored: "airflow", note: "recorded"},
			{path: kubectlApply, manifest: renamed(releaseRefused, "airflow-audited"), want: allowed,
				field: "spec.values.data.metadataConnection.existingSecret", stored: "airflow-db-app", note: "recorded"},
			{path: kubectlApply, manifest: renamed(kustomizationInFluxSystem, "airflow-audited"), want: allowed, field: "spec.targetNamespace",
				note: "nothing is injected either"},
		}},
	}
	for _, ch := range chapters {
		if err := s.setMode(ctx, ch.mode); err != nil {
			return 0, err
		}
		fmt.Fprintf(s.out, "\n%s\n", ch.title)
		audited, err := s.env.Webhook().Metric(ctx, "flux_admission_findings_total", "action=Audit")
		if err != nil {
			return 0, err
		}
		for _, st := range ch.steps {
			if err := s.run(ctx, st); err != nil {
				return 0, err
			}
		}
		if ch.mode == "AuditOnly" {
			now, err := s.env.Webhook().Metric(ctx, "flux_admission_findings_total", "action=Audit")
			if err != nil {
				return 0, err
			}
			s.check(now-audited >= 5, fmt.Sprintf("the metrics count %.0f findings that were audited only", now-audited))
		}
	}
	fmt.Fprintf(s.out, "\n%d of %d answers as expected\n", s.steps-s.wrong, s.steps)
	return s.wrong, nil
}

func (s *story) run(ctx context.Context, st step) error {
	o, err := writepath.Parse(st.manifest)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	got := st.path.Write(ctx, s.env.ControlPlane, st.manifest)
	answer := got.String()
	stored, there, err := s.stored(ctx, o, st.field)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\n  sent      %s %s/%s by %s\n", o.GetKind(), o.GetNamespace(), o.GetName(), st.path.Name)
	s.print("answered", answer)
	s.print("stored", describe(st, stored, there))

	by := allowed
	switch {
	case got.Err != nil && strings.Contains(answer, "denied the request"):
		by = deniedByWebhook
	case got.Err != nil:
		by = rejectedByAPIServer
	}
	ok := by == st.want && (st.want != allowed) == !there && stored == st.stored
	for _, part := range st.contains {
		ok = ok && strings.Contains(answer, part)
	}
	text := map[outcome]string{allowed: "allowed", deniedByWebhook: "denied by the webhook", rejectedByAPIServer: "rejected by the API server itself"}[by]
	if st.note != "" {
		text += ": " + st.note
	}
	s.check(ok, text)
	return nil
}

func describe(st step, stored string, there bool) string {
	switch {
	case !there:
		return "nothing"
	case st.field == "":
		return "the object"
	case stored == "":
		return "the object, without " + st.field
	default:
		return st.field + ": " + stored
	}
}

func (s *story) print(label, text string) {
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(s.out, "  %-9s %s\n", label, line)
	}
}

func (s *story) check(ok bool, text string) {
	s.steps++
	mark := "ok"
	if !ok {
		s.wrong++
		mark = "NOT AS EXPECTED"
	}
	fmt.Fprintf(s.out, "  %-9s %s\n", mark, text)
}

// stored returns a field of the stored object as text, and whether the object exists.
func (s *story) stored(ctx context.Context, o *unstructured.Unstructured, field string) (value string, there bool, err error) {
	got := &unstructured.Unstructured{}
	got.SetGroupVersionKind(o.GroupVersionKind())
	err = s.env.Client.Get(ctx, client.ObjectKeyFromObject(o), got)
	if apierrors.IsNotFound(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("reading what is stored: %w", err)
	}
	if field == "" {
		return "", true, nil
	}
	v, found, err := unstructured.NestedFieldNoCopy(got.Object, strings.Split(field, ".")...)
	if err != nil || !found {
		return "", true, nil //nolint:nilerr // a parent of another type: the field is not there
	}
	return fmt.Sprint(v), true, nil
}

// setMode applies the policy and waits until it is in force.
func (s *story) setMode(ctx context.Context, mode string) error {
	return s.env.SetPolicy(ctx, fmt.Sprintf(policy, mode))
}

// renamed returns the manifest with another metadata.name.
func renamed(manifest, name string) string {
	head, rest, _ := strings.Cut(manifest, "  name: ")
	_, rest, _ = strings.Cut(rest, "\n")
	return head + "  name: " + name + "\n" + rest
}
