// Package rotate replaces the CA that the webhook servers of a cluster manage themselves.
package rotate

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/flux-admission/flux-admission/internal/policy/source"
	"github.com/flux-admission/flux-admission/webhook/certs"
)

const (
	// pollInterval is how often the state of the cluster is read.
	pollInterval = 500 * time.Millisecond
	// settled is how long a caBundle must hold the new CA alone. A replica that still had the old CA in memory when the
	// caBundle was written would write it again within this time.
	settled = 3 * time.Second
	// injectFrom begins the annotations by which cert-manager's cainjector finds a caBundle that it writes.
	injectFrom = "cert-manager.io/inject-ca-from"
	// fieldManager owns the caBundle that a revocation wrote.
	fieldManager = "flux-admission-rotate"
)

// Options configure a rotation.
type Options struct {
	Client kubernetes.Interface
	// Namespace and Secret hold the CA. The Leases of the replicas are in the same namespace.
	Namespace, Secret string
	// WebhookConfig is the name of the webhook configurations.
	WebhookConfig string
	// Revoke removes every CA but the new one from the caBundle; otherwise the webhook servers remove the old one after
	// an hour.
	Revoke bool
	// Progress receives a line for each step.
	Progress io.Writer
}

// Rotation is a rotation that can be run.
type Rotation struct {
	options Options
	// before are the fingerprints of all CAs that were in use or trusted before.
	before map[string]bool
	// last is the last line of progress.
	last string
}

// Prepare checks that the CA of a cluster can be rotated, by whoever Options.Client is. It changes nothing.
func Prepare(ctx context.Context, o Options) (*Rotation, error) {
	r := &Rotation{options: o, before: map[string]bool{}}
	hooks, err := r.hooks(ctx)
	if err != nil {
		return nil, err
	}
	if len(hooks) == 0 {
		return nil, fmt.Errorf("no webhook configuration is named %s: flux-admission is not installed in this cluster, or "+
			"under another name, see --webhook-config", o.WebhookConfig)
	}
	for _, h := range hooks {
		if h.injectedFrom != "" {
			return nil, fmt.Errorf("cert-manager writes the caBundle of the webhook configuration %s (from %s): rotate the CA there, "+
				"with `cmctl renew` or by deleting the Secret of the CA's Certificate", o.WebhookConfig, h.injectedFrom)
		}
		for _, ca := range certs.ParseCABundle(h.caBundle) {
			r.before[certs.Fingerprint(ca)] = true
		}
	}
	replicas, err := r.replicas(ctx)
	if err != nil {
		return nil, err
	}
	if len(replicas) == 0 {
		return nil, fmt.Errorf("no webhook server runs in namespace %s: none has a Lease with the label %s there; "+
			"see --namespace. Servers with a policy file (serve --policy) have no Lease", o.Namespace, source.ReplicaLabel)
	}
	for _, l := range replicas {
		ca, ok := l.Annotations[source.CAAnnotation]
		if !ok {
			return nil, fmt.Errorf("the webhook server %s does not report its CA: its certificate is from files, or its version "+
				"is too old for this command", l.Name)
		}
		r.before[ca] = true
	}
	return r, errors.Join(r.mayDelete(ctx), r.mayPatch(ctx, hooks))
}

// mayDelete checks by dry-run that the Secret exists and can be deleted, without a permission to read the key of the CA.
func (r *Rotation) mayDelete(ctx context.Context) error {
	err := r.deleteSecret(ctx, metav1.DryRunAll)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("the Secret %s/%s with the CA does not exist; see --namespace and --ca-secret",
			r.options.Namespace, r.options.Secret)
	}
	return err
}

// mayPatch checks by dry-run that the caBundles can be written, if they have to be.
func (r *Rotation) mayPatch(ctx context.Context, hooks []hook) error {
	if !r.options.Revoke {
		return nil
	}
	var errs []error
	for _, c := range configurations(hooks) {
		errs = append(errs, r.patch(ctx, c, []byte(`{}`), metav1.DryRunAll))
	}
	return errors.Join(errs...)
}

// Run replaces the CA and waits until every webhook server serves a certificate of the new one. The error after a
// deadline has what is missing.
func (r *Rotation) Run(ctx context.Context) error {
	o := r.options
	if err := r.deleteSecret(ctx); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	r.progress("Deleted the Secret %s/%s: the webhook servers issue a new CA", o.Namespace, o.Secret)
	ca, replicas, err := r.served(ctx)
	if err != nil {
		return err
	}
	if !o.Revoke {
		r.progress("Rotated the CA of %d webhook servers: the new one is %s; the old one is trusted for an hour more", replicas, ca)
		return nil
	}
	removed, err := r.revoke(ctx, ca)
	if err != nil {
		return err
	}
	r.progress("Rotated the CA of %d webhook servers: the new one is %s; %s trusted any more", replicas, ca, none(removed))
	return nil
}

func none(n int) string {
	if n == 1 {
		return "1 other CA is not"
	}
	return fmt.Sprintf("%d other CAs are not", n)
}

// served waits until every replica serves a certificate of the same new CA, and returns its fingerprint and the number
// of replicas.
func (r *Rotation) served(ctx context.Context) (ca string, replicas int, err error) {
	var state string
	err = poll(ctx, func() (bool, error) {
		leases, err := r.replicas(ctx)
		if err != nil {
			return false, err
		}
		var missing []string
		cas := map[string]bool{}
		for _, l := range leases {
			if got := l.Annotations[source.CAAnnotation]; got == "" || r.before[got] {
				missing = append(missing, l.Name)
			} else {
				ca, cas[got] = got, true
			}
		}
		replicas = len(leases)
		r.progress("%d of %d webhook servers have a certificate of the new CA", replicas-len(missing), replicas)
		state = "no webhook server has a Lease any more"
		switch {
		case len(missing) > 0:
			state = fmt.Sprintf("no certificate of the new CA is served by %s; the old CA is still trusted; "+
				"look at the log and /readyz there", strings.Join(missing, ", "))
		case len(cas) > 1:
			state = "the webhook servers have certificates of different CAs"
		}
		return replicas > 0 && len(missing) == 0 && len(cas) == 1, nil
	})
	if err != nil {
		return "", 0, fmt.Errorf("waiting for the webhook servers: %w: %s", err, state)
	}
	return ca, replicas, nil
}

// revoke writes the CA alone into the caBundle of every webhook, until it stays there alone. It returns the number of
// CAs that it removed.
func (r *Rotation) revoke(ctx context.Context, fingerprint string) (removed int, err error) {
	gone := map[string]bool{}
	var alone time.Time
	var state error
	err = poll(ctx, func() (bool, error) {
		hooks, err := r.hooks(ctx)
		if err != nil {
			return false, err
		}
		state, err = r.writeAlone(ctx, hooks, fingerprint, gone)
		switch {
		case err != nil:
			return false, err
		case state != nil:
			alone = time.Time{}
		case alone.IsZero():
			alone = time.Now()
		}
		return state == nil && time.Since(alone) >= settled, nil
	})
	if err != nil {
		return 0, fmt.Errorf("removing the other CAs from the caBundle: %w",
			errors.Join(err, state, errors.New("other CAs may still be trusted: run the command again")))
	}
	return len(gone), nil
}

// writeAlone writes the CA alone into every caBundle that is different, and records the CAs that it removes. The state
// is nil if there is no such caBundle.
func (r *Rotation) writeAlone(
	ctx context.Context, hooks []hook, fingerprint string, gone map[string]bool,
) (state, err error) {
	ca := find(hooks, fingerprint)
	if ca == nil {
		return fmt.Errorf("no caBundle holds the CA %s", fingerprint), nil
	}
	want := certs.CABundle(ca)
	for _, c := range configurations(hooks) {
		var changes []any
		for _, h := range hooks {
			if h.configuration != c || bytes.Equal(h.caBundle, want) {
				continue
			}
			for _, other := range certs.ParseCABundle(h.caBundle) {
				if !other.Equal(ca) {
					gone[certs.Fingerprint(other)] = true
				}
			}
			changes = append(changes, map[string]any{"name": h.name, "clientConfig": map[string]any{"caBundle": want}})
		}
		if len(changes) == 0 {
			continue
		}
		state = fmt.Errorf("the caBundle of the %s was different a moment ago", c.kind)
		data, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"resourceVersion": c.resourceVersion}, "webhooks": changes,
		})
		if err != nil {
			return state, fmt.Errorf("encoding the caBundle: %w", err)
		}
		// A conflict is a replica that wrote at the same time; the next poll reads what it wrote.
		if err := r.patch(ctx, c, data); err != nil && !apierrors.IsConflict(err) {
			return state, err
		}
		r.progress("Wrote the new CA alone into the caBundle of the %s %s", c.kind, r.options.WebhookConfig)
	}
	return state, nil
}

func find(hooks []hook, fingerprint string) *x509.Certificate {
	for _, h := range hooks {
		for _, ca := range certs.ParseCABundle(h.caBundle) {
			if certs.Fingerprint(ca) == fingerprint {
				return ca
			}
		}
	}
	return nil
}

// poll calls done until it is done or fails, or ctx ends. An API server that does not respond, or not in time, is tried
// again.
func poll(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var last error
	for {
		ok, err := done()
		switch {
		case ok && err == nil:
			return nil
		case err != nil && apierrors.ReasonForError(err) != metav1.StatusReasonUnknown && !transient(err):
			return err
		case err != nil && ctx.Err() == nil:
			last = err
		case err == nil:
			last = nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

func transient(err error) bool {
	return apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err)
}

// progress writes a line unless it is the last one again.
func (r *Rotation) progress(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if line != r.last && r.options.Progress != nil {
		fmt.Fprintln(r.options.Progress, line)
	}
	r.last = line
}

func (r *Rotation) deleteSecret(ctx context.Context, dryRun ...string) error {
	secrets := r.options.Client.CoreV1().Secrets(r.options.Namespace)
	if err := secrets.Delete(ctx, r.options.Secret, metav1.DeleteOptions{DryRun: dryRun}); err != nil {
		return fmt.Errorf("deleting the Secret of the CA: %w", err)
	}
	return nil
}

// replicas returns the Leases of the replicas.
func (r *Rotation) replicas(ctx context.Context) ([]coordinationv1.Lease, error) {
	leases := r.options.Client.CoordinationV1().Leases(r.options.Namespace)
	list, err := leases.List(ctx, metav1.ListOptions{LabelSelector: source.ReplicaLabel})
	if err != nil {
		return nil, fmt.Errorf("listing the Leases of the webhook servers: %w", err)
	}
	return list.Items, nil
}

// configuration is one of the two webhook configurations.
type configuration struct {
	kind, resourceVersion string
	mutating              bool
}

// hook is one webhook of a configuration.
type hook struct {
	configuration
	name         string
	caBundle     []byte
	injectedFrom string
}

// configurations returns those that have webhooks.
func configurations(hooks []hook) []configuration {
	var out []configuration
	for _, h := range hooks {
		if !slices.Contains(out, h.configuration) {
			out = append(out, h.configuration)
		}
	}
	return out
}

// hooks returns the webhooks of both configurations, of which one may not exist.
func (r *Rotation) hooks(ctx context.Context) ([]hook, error) {
	client, name := r.options.Client.AdmissionregistrationV1(), r.options.WebhookConfig
	var out []hook
	v, err := client.ValidatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		c := configuration{kind: "ValidatingWebhookConfiguration", resourceVersion: v.ResourceVersion}
		for _, w := range v.Webhooks {
			out = append(out, newHook(c, w.Name, w.ClientConfig, v.Annotations))
		}
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("reading the ValidatingWebhookConfiguration: %w", err)
	}
	m, err := client.MutatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		c := configuration{kind: "MutatingWebhookConfiguration", resourceVersion: m.ResourceVersion, mutating: true}
		for _, w := range m.Webhooks {
			out = append(out, newHook(c, w.Name, w.ClientConfig, m.Annotations))
		}
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("reading the MutatingWebhookConfiguration: %w", err)
	}
	return out, nil
}

func newHook(c configuration, name string, config admissionv1.WebhookClientConfig, annotations map[string]string) hook {
	h := hook{configuration: c, name: name, caBundle: config.CABundle}
	for key, value := range annotations {
		if strings.HasPrefix(key, injectFrom) {
			h.injectedFrom = value
		}
	}
	return h
}

// patch sends a strategic merge patch of a configuration.
func (r *Rotation) patch(ctx context.Context, c configuration, data []byte, dryRun ...string) error {
	client, name := r.options.Client.AdmissionregistrationV1(), r.options.WebhookConfig
	options := metav1.PatchOptions{DryRun: dryRun, FieldManager: fieldManager}
	var err error
	if c.mutating {
		_, err = client.MutatingWebhookConfigurations().Patch(ctx, name, types.StrategicMergePatchType, data, options)
	} else {
		_, err = client.ValidatingWebhookConfigurations().Patch(ctx, name, types.StrategicMergePatchType, data, options)
	}
	if err != nil {
		return fmt.Errorf("writing the caBundle of the %s: %w", c.kind, err)
	}
	return nil
}
