package soak_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flux-admission/flux-admission/test/controlplane"
	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/hostile"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// chartHost is how the chart repository of honest releases behaves.
type chartHost struct {
	http.Handler
	mode atomic.Value // a string
}

// The ways in which the chart host behaves.
const (
	sound = "sound"
	slow  = "slow"
	gone  = "gone"
	lying = "lying"
)

func newChartHost(h http.Handler) *chartHost {
	c := &chartHost{Handler: h}
	c.mode.Store(sound)
	return c
}

func (c *chartHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch c.mode.Load() {
	case slow:
		select {
		case <-time.After(4 * time.Second): // more than a review waits for
		case <-r.Context().Done():
			return
		}
	case gone:
		panic(http.ErrAbortHandler)
	case lying:
		_, _ = w.Write([]byte("<!doctype html><title>Sign in</title>"))
		return
	}
	c.Handler.ServeHTTP(w, r)
}

// fault is something that fails for a while.
type fault struct {
	name string
	run  func(ctx context.Context) error
}

// faults returns everything that fails, in this order. Those that restart the API server are last.
func (s *soak) faults(host *chartHost, kubelets []*kubelet) []fault {
	plane := shared.ControlPlane
	during := func(d time.Duration, begin, end func() error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := begin(); err != nil {
				return err
			}
			sleep(ctx, d)
			return end()
		}
	}
	proxy := func(d, delay time.Duration) func(context.Context) error {
		return during(d, func() error { shared.Proxy.Delay(delay); return nil }, func() error { shared.Proxy.Delay(0); return nil })
	}
	mode := func(m string) func(context.Context) error {
		return during(6*time.Second, func() error { host.mode.Store(m); return nil }, func() error { host.mode.Store(sound); return nil })
	}
	pause := func(c controlplane.Component) func(context.Context) error {
		return during(4*time.Second, func() error { return plane.Pause(c) }, func() error { return plane.Resume(c) })
	}
	all := []fault{
		{"a replica is killed every few seconds", func(ctx context.Context) error {
			for i := range 3 {
				kubelets[i%len(kubelets)].kill()
				sleep(ctx, 4*time.Second)
			}
			return nil
		}},
		{"the certificate authority is replaced", s.replaceCA(func(*corev1.Secret) error { return nil })},
		{"policies change, and are broken", s.flapPolicy},
		{"the chart host has gone", mode(gone)},
		{"the chart host is slow", mode(slow)},
		{"the chart host lies", mode(lying)},
		{"the API server is slow for the replicas", proxy(6*time.Second, 200*time.Millisecond)},
		{"the replicas cannot reach the API server", during(4*time.Second, func() error { shared.Proxy.Cut(true); return nil }, func() error { shared.Proxy.Cut(false); return nil })},
		{"etcd is paused", pause(controlplane.Etcd)},
		{"the API server is paused", pause(controlplane.APIServer)},
		{"a replica finds an expired certificate authority", s.skewedCA(kubelets[0], -48*time.Hour, -24*time.Hour)},
		{"a replica finds a certificate authority of tomorrow", s.skewedCA(kubelets[1], 24*time.Hour, 48*time.Hour)},
		{"the API server crashes", func(ctx context.Context) error {
			if err := plane.Crash(ctx, controlplane.APIServer); err != nil {
				return err
			}
			sleep(ctx, 2*time.Second)
			return plane.Restart(context.WithoutCancel(ctx), controlplane.APIServer)
		}},
	}
	if short {
		return all[:4]
	}
	return all
}

// fail lets one thing after the other fail until ctx ends, with a pause after each.
func (s *soak) fail(ctx context.Context, faults []fault, next *int, log func(format string, args ...any)) error {
	for ctx.Err() == nil {
		f := faults[*next%len(faults)]
		*next++
		log("%s", f.name)
		if err := f.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		sleep(ctx, 2*time.Second)
	}
	return nil
}

// retried calls f until it succeeds, since the API server may be failing.
func retried(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		sleep(ctx, retryEvery)
	}
}

// replaceCA makes the Secret of the CA incomplete, so that the replicas issue another one at once.
func (s *soak) replaceCA(edit func(*corev1.Secret) error) func(context.Context) error {
	return func(ctx context.Context) error {
		return retried(ctx, func(ctx context.Context) error {
			secret := &corev1.Secret{}
			if err := s.client.Get(ctx, client.ObjectKey{Namespace: env.Namespace, Name: "flux-admission-ca"}, secret); err != nil {
				return err
			}
			secret.Data["ca.crt"] = nil
			if err := edit(secret); err != nil {
				return err
			}
			return s.client.Update(ctx, secret)
		})
	}
}

// skewedCA puts a CA into the Secret that a replica with another clock has issued, and starts a replica.
func (s *soak) skewedCA(k *kubelet, from, to time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		now := time.Now()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "flux-admission-ca"}, NotBefore: now.Add(from), NotAfter: now.Add(to),
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		}
		raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
		err = s.replaceCA(func(secret *corev1.Secret) error {
			secret.Data["ca.crt"], secret.Data["tls.crt"] = certificate, certificate
			secret.Data["tls.key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
			return nil
		})(ctx)
		k.kill()
		sleep(ctx, 5*time.Second)
		return err
	}
}

// flapPolicy changes the policy in ways that leave the verdicts, writes broken ones, and for a moment one that only records.
func (s *soak) flapPolicy(ctx context.Context) error {
	defer s.auditOnly.Store(false)
	var original *unstructured.Unstructured
	err := retried(ctx, func(ctx context.Context) error {
		o := newPolicy()
		err := client.IgnoreNotFound(s.client.Get(ctx, client.ObjectKeyFromObject(o), o))
		original = o
		return err
	})
	if err != nil {
		return err
	}
	edits := []func(o *unstructured.Unstructured) error{
		func(o *unstructured.Unstructured) error {
			return unstructured.SetNestedSlice(o.Object, []any{map[string]any{
				"rules": []any{"kustomization-namespace"}, "match": map[string]any{"namespaces": []any{"elsewhere"}}, "reason": "an exemption of others",
			}}, "spec", "exemptions")
		},
		func(o *unstructured.Unstructured) error {
			return unstructured.SetNestedSlice(o.Object, []any{map[string]any{"match": map[string]any{"path": "("}, "targetNamespace": "apps"}}, "spec", "mutations", "target-namespace")
		},
		func(o *unstructured.Unstructured) error {
			s.auditOnly.Store(true)
			return unstructured.SetNestedField(o.Object, "AuditOnly", "spec", "mode")
		},
		func(*unstructured.Unstructured) error { return nil }, // as it was
	}
	for i, edit := range edits {
		err := retried(ctx, func(ctx context.Context) error {
			o := newPolicy()
			if err := client.IgnoreNotFound(s.client.Get(ctx, client.ObjectKeyFromObject(o), o)); err != nil {
				return err
			}
			version := o.GetResourceVersion()
			spec, _, _ := unstructured.NestedMap(original.Object, "spec")
			if spec == nil {
				spec = map[string]any{}
			}
			o.Object["spec"] = spec
			if err := edit(o); err != nil {
				return err
			}
			if version == "" {
				err := s.client.Create(ctx, o)
				return s.orRefused(i, err)
			}
			return s.orRefused(i, s.client.Update(ctx, o))
		})
		if err != nil {
			return err
		}
		sleep(ctx, 1500*time.Millisecond)
	}
	return enforcing(ctx)
}

// enforcing waits until no replica has a policy in force that only records.
func enforcing(ctx context.Context) error {
	return retried(ctx, func(ctx context.Context) error {
		n, err := shared.Metric(ctx, "flux_admission_policy_audit_only")
		if err == nil && n != 0 {
			err = fmt.Errorf("%v replicas are still audit-only", n)
		}
		return err
	})
}

// strict waits until every replica refuses a release whose chart cannot be read.
func strict(ctx context.Context) error {
	body := hostile.ReviewOf(parse(release(team, "probe", "no-such-source", goodValues)))
	for _, w := range shared.Webhooks {
		err := retried(ctx, func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+w.Address+webhookconfig.ValidatePath+"?timeout=10s", bytes.NewReader(body))
			if err != nil {
				return err
			}
			response, err := hostile.Client().Do(r)
			if err != nil {
				return err
			}
			data, err := io.ReadAll(response.Body)
			if err := errors.Join(err, response.Body.Close()); err != nil {
				return err
			}
			if !bytes.Contains(data, []byte(`"allowed":false`)) {
				return fmt.Errorf("the policy of the component strict is not in force yet: %s", data)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// orRefused accepts that the policy webhook refuses a policy with a pattern that does not compile.
func (s *soak) orRefused(edit int, err error) error {
	if edit == 1 && err != nil && strings.Contains(err.Error(), "denied the request") {
		return nil
	}
	return err
}

func newPolicy() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "flux-admission.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": map[string]any{"name": "default"},
	}}
}
