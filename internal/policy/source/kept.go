package source

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
)

const (
	// keptName is the name of the ConfigMap that keeps the policy in force across restarts, whatever happens to the AdmissionPolicy and its CRD.
	keptName = "flux-admission-policy"
	// keptKey is its key: the spec, as JSON.
	keptKey = "spec.json"
	// maxKept limits the kept spec, in bytes. A ConfigMap holds at most 1 MiB.
	maxKept = 900 << 10
)

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// kept is the policy that was in force when the last process stopped.
type kept struct {
	// spec is nil if there was none.
	spec map[string]any
	// unknown means that the permission to read it is missing.
	unknown bool
}

// readKept reads the kept policy, once.
func (c *Cluster) readKept(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept != nil {
		return nil
	}
	if c.options.Namespace == "" {
		c.kept = &kept{}
		return nil
	}
	o, err := c.client.Resource(configMaps).Namespace(c.options.Namespace).Get(ctx, keptName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		c.kept = &kept{}
		return nil
	case apierrors.IsForbidden(err):
		c.log.Error(err, "Not permitted to read the last AdmissionPolicy in force")
		c.kept = &kept{unknown: true}
		return nil
	case err != nil:
		return fmt.Errorf("reading ConfigMap %s/%s: %w", c.options.Namespace, keptName, err)
	}
	k := &kept{}
	text, _, _ := unstructured.NestedString(o.Object, "data", keptKey)
	if err := json.Unmarshal([]byte(text), &k.spec); err != nil || k.spec == nil {
		c.log.Info("The kept AdmissionPolicy is not readable; its mode is taken for AuditOnly", "configMap", c.options.Namespace+"/"+keptName)
		k.spec = map[string]any{"mode": string(v1alpha1.ModeAuditOnly)}
	}
	c.kept = k
	return nil
}

// keep stores the spec of the policy in force, and returns what it stored. It writes only if that is not stored yet.
func keep(ctx context.Context, c *Cluster, spec map[string]any, stored string) (string, error) {
	data, err := json.Marshal(spec)
	if err != nil {
		return stored, fmt.Errorf("encoding the policy in force: %w", err)
	}
	if len(data) > maxKept {
		// An older policy may be stricter than this one.
		data = []byte(`{"mode":"AuditOnly"}`)
	}
	text := string(data)
	if text == stored {
		return stored, nil
	}
	client := c.client.Resource(configMaps).Namespace(c.options.Namespace)
	o, err := client.Get(ctx, keptName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = client.Create(ctx, keptConfigMap(c.options.Namespace, text), metav1.CreateOptions{})
		return text, wrapKeep(err)
	}
	if err != nil {
		return stored, wrapKeep(err)
	}
	if have, _, _ := unstructured.NestedString(o.Object, "data", keptKey); have == text {
		return text, nil
	}
	if err := unstructured.SetNestedField(o.Object, text, "data", keptKey); err != nil {
		return stored, wrapKeep(err)
	}
	if _, err := client.Update(ctx, o, metav1.UpdateOptions{}); err != nil {
		return stored, wrapKeep(err)
	}
	return text, nil
}

func wrapKeep(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("writing ConfigMap %s: %w", keptName, err)
}

func keptConfigMap(namespace, text string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{
			"name": keptName, "namespace": namespace, "labels": map[string]any{"app.kubernetes.io/name": "flux-admission"},
			"annotations": map[string]any{
				"flux-admission.dev/description": "The policy that was last in force. It applies if the AdmissionPolicy is deleted; delete this object, too, and restart to return to the default policy.",
			},
		},
		"data": map[string]any{keptKey: text},
	}}
}
