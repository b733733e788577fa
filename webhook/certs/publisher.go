package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
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
	// publishTimeout bounds one attempt to write the bundle.
	publishTimeout = 10 * time.Second
	// publishRetry is the pause after a failed attempt. A conflict, another replica was faster, is over with the next event.
	publishRetry = 500 * time.Millisecond
	// publishEvery makes expired CAs leave the bundle.
	publishEvery = time.Minute
)

// publisher keeps the CA in the caBundle of both webhook configurations. Every replica does so: what one has written, the others find done.
type publisher struct {
	client            kubernetes.Interface
	namespace, secret string
	// config is the name of both webhook configurations.
	config  string
	observe func(error)
	now     func() time.Time

	mu        sync.Mutex
	published []publishedCA
	problem   error
}

// publishedCA is a CA that every webhook's bundle has been seen to hold, and since when.
type publishedCA struct {
	ca    *x509.Certificate
	since time.Time
}

// since tells since when the CA that signed the certificate has been published in every webhook.
func (p *publisher) since(leaf *x509.Certificate) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.published {
		if bytes.Equal(leaf.AuthorityKeyId, c.ca.SubjectKeyId) && leaf.CheckSignatureFrom(c.ca) == nil {
			return c.since, true
		}
	}
	return time.Time{}, false
}

// ready is the check that the last attempt to publish went well.
func (p *publisher) ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.problem
}

func (p *publisher) run(ctx context.Context) error {
	log := logr.FromContextOrDiscard(ctx)
	byName := func(name string) informers.SharedInformerOption {
		return informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		})
	}
	secrets := informers.NewSharedInformerFactoryWithOptions(p.client, 0, informers.WithNamespace(p.namespace), byName(p.secret))
	configs := informers.NewSharedInformerFactoryWithOptions(p.client, 0, byName(p.config))
	secret := secrets.Core().V1().Secrets()
	validating, mutating := configs.Admissionregistration().V1().ValidatingWebhookConfigurations(), configs.Admissionregistration().V1().MutatingWebhookConfigurations()

	poke := make(chan struct{}, 1)
	for _, i := range []cache.SharedIndexInformer{secret.Informer(), validating.Informer(), mutating.Informer()} {
		if _, err := i.AddEventHandler(pokeOnEvent(poke)); err != nil {
			return fmt.Errorf("watching for changes of the CA and the webhook configurations: %w", err)
		}
	}
	for _, f := range []informers.SharedInformerFactory{secrets, configs} {
		f.Start(ctx.Done())
		defer f.Shutdown()
	}
	if !cache.WaitForCacheSync(ctx.Done(), secret.Informer().HasSynced, validating.Informer().HasSynced, mutating.Informer().HasSynced) {
		return nil // the context has ended
	}
	for {
		var state observed
		var err error
		if state.secret, err = optional(secret.Lister().Secrets(p.namespace).Get(p.secret)); err == nil {
			if state.validating, err = optional(validating.Lister().Get(p.config)); err == nil {
				state.mutating, err = optional(mutating.Lister().Get(p.config))
			}
		}
		if err == nil {
			err = p.publish(ctx, state)
		}
		pause := publishEvery
		if err != nil {
			pause = publishRetry
			if text := err.Error(); p.ready() == nil || p.ready().Error() != text {
				log.Info("The CA is not published", "reason", text)
			}
		}
		p.mu.Lock()
		p.problem = err
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-poke:
		case <-time.After(pause):
		}
	}
}

// pokeOnEvent wakes the loop; a wake-up that is already due is enough for any number of events.
func pokeOnEvent(poke chan<- struct{}) cache.ResourceEventHandlerFuncs {
	wake := func() {
		select {
		case poke <- struct{}{}:
		default:
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { wake() }, UpdateFunc: func(any, any) { wake() }, DeleteFunc: func(any) { wake() },
	}
}

// optional turns "not found" into nil.
func optional[T any](o *T, err error) (*T, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return o, err
}

// observed is what the informers have seen; nil for what does not exist.
type observed struct {
	secret     *corev1.Secret
	validating *admissionv1.ValidatingWebhookConfiguration
	mutating   *admissionv1.MutatingWebhookConfiguration
}

// hook is one webhook of a configuration, by what is of interest here.
type hook struct {
	name   string
	bundle []byte
}

func (o observed) hooks() (validating, mutating []hook) {
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

// publish notes what is published and adds what is missing. The error says what keeps the CA from being published.
func (p *publisher) publish(ctx context.Context, o observed) error {
	validating, mutating := o.hooks()
	p.note(append(append([]hook(nil), validating...), mutating...))
	if o.secret == nil {
		return fmt.Errorf("the Secret %s/%s with the CA does not exist yet", p.namespace, p.secret)
	}
	cas := parseBundle(o.secret.Data[corev1.TLSCertKey])
	if len(cas) == 0 {
		return fmt.Errorf("the Secret %s/%s holds no CA certificate yet", p.namespace, p.secret)
	}
	if o.validating == nil && o.mutating == nil {
		return fmt.Errorf("there is no webhook configuration named %s to publish the CA in: apply the manifests, or name it with --webhook-config", p.config)
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	var errs []error
	if patch := p.patch(validating, cas[0]); patch != nil {
		errs = append(errs, p.write(o.validating.ResourceVersion, patch, func(data []byte) error {
			_, err := p.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(ctx, p.config, types.StrategicMergePatchType, data, metav1.PatchOptions{})
			return err
		}))
	}
	if patch := p.patch(mutating, cas[0]); patch != nil {
		errs = append(errs, p.write(o.mutating.ResourceVersion, patch, func(data []byte) error {
			_, err := p.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(ctx, p.config, types.StrategicMergePatchType, data, metav1.PatchOptions{})
			return err
		}))
	}
	return errors.Join(errs...)
}

// patch returns the webhooks of a strategic merge patch that brings the bundles up to date; nil when they are.
func (p *publisher) patch(hooks []hook, ca *x509.Certificate) []any {
	var out []any
	for _, h := range hooks {
		if merged := mergeBundle(h.bundle, ca, p.now()); !bytes.Equal(merged, h.bundle) {
			out = append(out, map[string]any{"name": h.name, "clientConfig": map[string]any{"caBundle": merged}})
		}
	}
	return out
}

// write sends the patch on the condition that the configuration is still the one it was made for: of two replicas that publish at the
// same time, one has to look again.
func (p *publisher) write(resourceVersion string, webhooks []any, send func([]byte) error) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": resourceVersion}, "webhooks": webhooks})
	if err != nil {
		return fmt.Errorf("writing the CA bundle's patch: %w", err)
	}
	err = send(data)
	p.observe(err)
	if err != nil {
		return fmt.Errorf("publishing the CA in the webhook configuration %s: %w", p.config, err)
	}
	return nil
}

// note remembers which CAs every webhook's bundle holds, and since when.
func (p *publisher) note(hooks []hook) {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := map[string]int{}
	byRaw := map[string]*x509.Certificate{}
	for _, h := range hooks {
		for _, ca := range parseBundle(h.bundle) {
			if _, again := byRaw[string(ca.Raw)]; !again {
				byRaw[string(ca.Raw)] = ca
			}
			count[string(ca.Raw)]++
		}
	}
	var now []publishedCA
	for raw, ca := range byRaw {
		if count[raw] < len(hooks) {
			continue
		}
		c := publishedCA{ca: ca, since: p.now()}
		for _, before := range p.published {
			if before.ca.Equal(ca) {
				c.since = before.since
			}
		}
		now = append(now, c)
	}
	p.published = now
}
