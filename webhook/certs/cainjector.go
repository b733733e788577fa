package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const (
	// injectTimeout limits one attempt to write the caBundle.
	injectTimeout = 10 * time.Second
	// injectRetry is the pause after a failed attempt. A conflict with another replica is resolved by the next event.
	injectRetry = 500 * time.Millisecond
	// injectInterval is how often expired CAs are removed.
	injectInterval = time.Minute
	// caKey is the key of the CA in its Secret, next to that of the certificate and the private key.
	caKey = "ca.crt"
)

// caInjector writes the CA into the caBundle of both webhook configurations. Every replica does; a replica that finds
// the CA there writes nothing.
type caInjector struct {
	client            kubernetes.Interface
	namespace, secret string
	// config is the name of both webhook configurations.
	config  string
	observe func(error)
	now     func() time.Time
	log     logr.Logger

	mu       sync.Mutex
	injected []injectedCA
	problem  error
}

// injectedCA is a CA that is in the caBundle of every webhook, and since when.
type injectedCA struct {
	ca    *x509.Certificate
	since time.Time
}

// since returns since when the caBundle of every webhook has held the CA that signed the certificate.
func (i *caInjector) since(leaf *x509.Certificate) (time.Time, bool) {
	c, ok := i.issuer(leaf)
	return c.since, ok
}

// issuer returns the CA that signed the certificate, if the caBundle of every webhook holds it.
func (i *caInjector) issuer(leaf *x509.Certificate) (injectedCA, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, c := range i.injected {
		if bytes.Equal(leaf.AuthorityKeyId, c.ca.SubjectKeyId) && leaf.CheckSignatureFrom(c.ca) == nil {
			return c, true
		}
	}
	return injectedCA{}, false
}

// ready returns the error of the last attempt.
func (i *caInjector) ready() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.problem
}

func (i *caInjector) run(ctx context.Context) error {
	byName := func(name string) informers.SharedInformerOption {
		return informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		})
	}
	secrets := informers.NewSharedInformerFactoryWithOptions(
		i.client, 0, informers.WithNamespace(i.namespace), byName(i.secret))
	configs := informers.NewSharedInformerFactoryWithOptions(i.client, 0, byName(i.config))
	secret := secrets.Core().V1().Secrets()
	validating := configs.Admissionregistration().V1().ValidatingWebhookConfigurations()
	mutating := configs.Admissionregistration().V1().MutatingWebhookConfigurations()

	wake := make(chan struct{}, 1)
	for _, informer := range []cache.SharedIndexInformer{secret.Informer(), validating.Informer(), mutating.Informer()} {
		if _, err := informer.AddEventHandler(wakeOnEvent(wake)); err != nil {
			return fmt.Errorf("watching the CA and the webhook configurations: %w", err)
		}
	}
	for _, f := range []informers.SharedInformerFactory{secrets, configs} {
		f.Start(ctx.Done())
		defer f.Shutdown()
	}
	if !cache.WaitForCacheSync(ctx.Done(),
		secret.Informer().HasSynced, validating.Informer().HasSynced, mutating.Informer().HasSynced) {
		return nil // the context has ended
	}
	for {
		var current state
		var err error
		if current.secret, err = optional(secret.Lister().Secrets(i.namespace).Get(i.secret)); err == nil {
			if current.validating, err = optional(validating.Lister().Get(i.config)); err == nil {
				current.mutating, err = optional(mutating.Lister().Get(i.config))
			}
		}
		if err == nil {
			err = i.inject(ctx, current)
		}
		pause := injectInterval
		if err != nil {
			pause = injectRetry
			if last := i.ready(); last == nil || last.Error() != err.Error() {
				i.log.Error(err, "Failed to write the caBundle", "webhookConfiguration", i.config)
			}
		}
		i.mu.Lock()
		i.problem = err
		i.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-time.After(pause):
		}
	}
}

// wakeOnEvent wakes the loop of run, once for all events that it has not seen yet.
func wakeOnEvent(wake chan<- struct{}) cache.ResourceEventHandlerFuncs {
	notify := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { notify() }, UpdateFunc: func(any, any) { notify() }, DeleteFunc: func(any) { notify() },
	}
}

// optional returns nil for an object that is not found.
func optional[T any](o *T, err error) (*T, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return o, err
}

// state is what the informers hold; nil for an object that does not exist.
type state struct {
	secret     *corev1.Secret
	validating *admissionv1.ValidatingWebhookConfiguration
	mutating   *admissionv1.MutatingWebhookConfiguration
}

// hook is one webhook of a configuration.
type hook struct {
	name     string
	caBundle []byte
}

func (o state) hooks() (validating, mutating []hook) {
	if o.validating != nil {
		for _, w := range o.validating.Webhooks {
			validating = append(validating, hook{w.Name, w.ClientConfig.CABundle})
		}
	}
	if o.mutating != nil {
		for _, w := range o.mutating.Webhooks {
			mutating = append(mutating, hook{w.Name, w.ClientConfig.CABundle})
		}
	}
	return validating, mutating
}

// inject records which CAs the webhooks hold and writes what is missing.
func (i *caInjector) inject(ctx context.Context, o state) error {
	validating, mutating := o.hooks()
	i.record(slices.Concat(validating, mutating))
	if o.secret == nil {
		return fmt.Errorf("the Secret %s/%s with the CA does not exist yet", i.namespace, i.secret)
	}
	cas := ParseCABundle(o.secret.Data[corev1.TLSCertKey])
	if len(cas) == 0 {
		return fmt.Errorf("the Secret %s/%s has no CA certificate yet", i.namespace, i.secret)
	}
	if o.validating == nil && o.mutating == nil {
		return fmt.Errorf("no webhook configuration is named %s: apply the manifests, or set --webhook-config", i.config)
	}
	ctx, cancel := context.WithTimeout(ctx, injectTimeout)
	defer cancel()
	if cas[0].NotBefore.After(i.now().Add(maxClockSkew)) {
		return i.discard(ctx, o.secret, cas[0])
	}
	var errs []error
	if patch := i.patch(validating, cas[0]); patch != nil {
		errs = append(errs, i.write(o.validating, patch, cas[0], func(data []byte) error {
			configs := i.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
			_, err := configs.Patch(ctx, i.config, types.StrategicMergePatchType, data, metav1.PatchOptions{})
			return err
		}))
	}
	if patch := i.patch(mutating, cas[0]); patch != nil {
		errs = append(errs, i.write(o.mutating, patch, cas[0], func(data []byte) error {
			configs := i.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
			_, err := configs.Patch(ctx, i.config, types.StrategicMergePatchType, data, metav1.PatchOptions{})
			return err
		}))
	}
	return errors.Join(errs...)
}

// discard has the authority issue another CA in place of one that is not valid yet: a replica whose clock is ahead has issued it,
// and API servers refuse what it signs. The authority replaces a CA that is incomplete.
func (i *caInjector) discard(ctx context.Context, s *corev1.Secret, ca *x509.Certificate) error {
	s = s.DeepCopy()
	delete(s.Data, caKey)
	reason := fmt.Errorf("the CA in the Secret %s/%s is not valid until %s; check the clocks of the nodes. It is being replaced",
		i.namespace, i.secret, ca.NotBefore.Format(time.RFC3339))
	_, err := i.client.CoreV1().Secrets(i.namespace).Update(ctx, s, metav1.UpdateOptions{})
	return errors.Join(reason, err)
}

// patch returns the webhooks of a strategic merge patch that updates their caBundle; nil if there is nothing to update.
func (i *caInjector) patch(hooks []hook, ca *x509.Certificate) []any {
	var out []any
	for _, h := range hooks {
		if merged := mergeCABundle(h.caBundle, ca, i.now()); !bytes.Equal(merged, h.caBundle) {
			out = append(out, map[string]any{"name": h.name, "clientConfig": map[string]any{"caBundle": merged}})
		}
	}
	return out
}

// write sends the patch on condition that the configuration has not changed: of two replicas that write at the same
// time, one gets a conflict and tries again.
func (i *caInjector) write(config metav1.Object, webhooks []any, ca *x509.Certificate, send func([]byte) error) error {
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": config.GetResourceVersion()}, "webhooks": webhooks,
	})
	if err != nil {
		return fmt.Errorf("encoding the patch of the caBundle: %w", err)
	}
	err = send(data)
	i.observe(err)
	if err != nil {
		return fmt.Errorf("writing the caBundle of the webhook configuration %s: %w", i.config, err)
	}
	i.log.Info("Wrote the caBundle", "webhookConfiguration", i.config, "kind", kindOf(config), "webhooks", len(webhooks),
		"ca", Fingerprint(ca), "expires", ca.NotAfter.Format(time.RFC3339))
	return nil
}

// kindOf returns the kind of a webhook configuration, which objects of a client do not have.
func kindOf(config metav1.Object) string {
	if _, ok := config.(*admissionv1.MutatingWebhookConfiguration); ok {
		return "MutatingWebhookConfiguration"
	}
	return "ValidatingWebhookConfiguration"
}

// record records which CAs the caBundle of every webhook holds, and since when.
func (i *caInjector) record(hooks []hook) {
	i.mu.Lock()
	defer i.mu.Unlock()
	count := map[string]int{}
	byRaw := map[string]*x509.Certificate{}
	for _, h := range hooks {
		for _, ca := range ParseCABundle(h.caBundle) {
			if _, again := byRaw[string(ca.Raw)]; !again {
				byRaw[string(ca.Raw)] = ca
			}
			count[string(ca.Raw)]++
		}
	}
	var now []injectedCA
	for raw, ca := range byRaw {
		if count[raw] < len(hooks) {
			continue
		}
		c := injectedCA{ca: ca, since: i.now()}
		for _, before := range i.injected {
			if before.ca.Equal(ca) {
				c.since = before.since
			}
		}
		now = append(now, c)
	}
	i.injected = now
}
