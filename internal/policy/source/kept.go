package source

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

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
	keptKey         = "spec.json"
	keptDescription = "The policy that was last in force. It applies if the AdmissionPolicy is deleted; delete this object, too, and restart to return to the default policy."
	// maxKept limits the kept spec, in bytes. A ConfigMap holds at most 1 MiB.
	maxKept = 900 << 10

	// knownName is the name of the ConfigMap with the rules that this cluster had: those that came later warn at most while there is no
	// AdmissionPolicy. It is an object of its own because earlier versions take a ConfigMap keptName without keptKey for an unreadable policy.
	knownName = "flux-admission-rules"
	// knownKey is its key: the names of the rules, as JSON.
	knownKey         = "rules.json"
	knownDescription = "The rules that were in force in this cluster. Without an AdmissionPolicy, rules that are not here are limited to Warn; delete this object and restart to have them at their default actions."
)

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// kept is what earlier processes stored.
type kept struct {
	// spec is the policy that was in force when the last process stopped; nil if there was none.
	spec map[string]any
	// rules are the names of the rules that this cluster had; nil if none are recorded.
	rules []string
	// unknown means that the permission to read them is missing.
	unknown bool
}

// readKept reads what is kept, once.
func (c *Cluster) readKept(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept != nil {
		return nil
	}
	k := &kept{}
	if c.options.Namespace == "" {
		c.kept = k
		return nil
	}
	policyText, found, err := c.readConfigMap(ctx, keptName, keptKey)
	if err == nil && found {
		if err := json.Unmarshal([]byte(policyText), &k.spec); err != nil || k.spec == nil {
			c.log.Info("The kept AdmissionPolicy is not readable; its mode is taken for AuditOnly", "configMap", c.options.Namespace+"/"+keptName)
			k.spec = map[string]any{"mode": string(v1alpha1.ModeAuditOnly)}
		}
	}
	if err == nil {
		err = c.readKnown(ctx, k)
	}
	switch {
	case apierrors.IsForbidden(err):
		c.log.Error(err, "Not permitted to read the last AdmissionPolicy in force")
		c.kept = &kept{unknown: true}
		return nil
	case err != nil:
		return err
	}
	c.kept = k
	return nil
}

// readKnown reads the rules that this cluster had. If the record is not readable, every rule is new.
func (c *Cluster) readKnown(ctx context.Context, k *kept) error {
	text, found, err := c.readConfigMap(ctx, knownName, knownKey)
	if err != nil || !found {
		return err
	}
	if err := json.Unmarshal([]byte(text), &k.rules); err != nil || k.rules == nil {
		c.log.Info("The record of known rules is not readable; all rules are limited to Warn until there is an AdmissionPolicy",
			"configMap", c.options.Namespace+"/"+knownName)
		k.rules = []string{}
	}
	return nil
}

// keep stores the spec of the policy in force, and returns what it stored. It writes only if that is not stored yet.
func (c *Cluster) keep(ctx context.Context, spec map[string]any, stored string) (string, error) {
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
	err = c.writeConfigMap(ctx, keptName, keptDescription, keptKey, func(string) (string, error) { return text, nil })
	if err != nil {
		return stored, err
	}
	return text, nil
}

// record adds the rules of a policy in force to those that this cluster had, and returns what it added. Another version of the program may have
// recorded others, which stay. Without an AdmissionPolicy, it records those of a cluster without a record.
func (c *Cluster) record(ctx context.Context, f InForce, recorded string) (string, error) {
	if f.Origin == OriginLast || f.Origin == OriginDefault && !c.unrecorded() {
		return recorded, nil // an operator may have deleted the record, to accept all rules at the next start
	}
	var names []string
	for _, name := range c.options.Rules {
		if !slices.Contains(f.Limited, name) {
			names = append(names, name)
		}
	}
	text := strings.Join(names, " ")
	if text == recorded {
		return recorded, nil
	}
	err := c.writeConfigMap(ctx, knownName, knownDescription, knownKey, func(have string) (string, error) {
		var all []string
		_ = json.Unmarshal([]byte(have), &all) // an unreadable record is replaced
		all = slices.Compact(slices.Sorted(slices.Values(slices.Concat(all, names))))
		data, err := json.Marshal(all)
		return string(data), err
	})
	if err != nil {
		return recorded, err
	}
	return text, nil
}

// unrecorded reports whether there was no record of rules when the process started.
func (c *Cluster) unrecorded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept != nil && c.kept.rules == nil && !c.kept.unknown
}

// readConfigMap returns a value of a ConfigMap; found is false without the ConfigMap.
func (c *Cluster) readConfigMap(ctx context.Context, name, key string) (text string, found bool, err error) {
	o, err := c.client.Resource(configMaps).Namespace(c.options.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("reading ConfigMap %s/%s: %w", c.options.Namespace, name, err)
	}
	text, _, _ = unstructured.NestedString(o.Object, "data", key)
	return text, true, nil
}

// writeConfigMap sets a value of a ConfigMap, which it creates if there is none. edit receives the value that is stored.
func (c *Cluster) writeConfigMap(ctx context.Context, name, description, key string, edit func(have string) (string, error)) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing ConfigMap %s: %w", name, err)
		}
	}()
	client := c.client.Resource(configMaps).Namespace(c.options.Namespace)
	o, err := client.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		text, err := edit("")
		if err != nil {
			return err
		}
		_, err = client.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{
				"name": name, "namespace": c.options.Namespace, "labels": map[string]any{"app.kubernetes.io/name": "flux-admission"},
				"annotations": map[string]any{"flux-admission.dev/description": description},
			},
			"data": map[string]any{key: text},
		}}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	have, _, _ := unstructured.NestedString(o.Object, "data", key)
	text, err := edit(have)
	if err != nil || have == text {
		return err
	}
	if err := unstructured.SetNestedField(o.Object, text, "data", key); err != nil {
		return err
	}
	_, err = client.Update(ctx, o, metav1.UpdateOptions{})
	return err
}
