package webhook_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// load is a stream of admissions in the background.
type load struct {
	direct, throughServer atomic.Int64

	mu       sync.Mutex
	failures []string
	stop     func()
}

// startLoad sends 200 reviews per second to the load balancer, trusting the CAs of the webhook configuration, and
// writes through the API server as fast as it responds to one client: a good object, which must be allowed, and a bad
// one, which must be denied by KS001.
func startLoad(t *testing.T, refuses func() bool) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{}
	var running sync.WaitGroup
	l.stop = func() {
		cancel()
		running.Wait()
	}
	running.Go(func() { l.reviews(ctx) })
	running.Go(func() { l.writes(ctx, refuses) })
	t.Cleanup(l.stop)
	return l
}

func (l *load) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// end stops the load and reports failures.
func (l *load) end(t *testing.T, atLeast int64) {
	t.Helper()
	l.stop()
	t.Logf("%d direct reviews, %d writes through the API server, %d failed", l.direct.Load(), l.throughServer.Load(), len(l.failures))
	for i, f := range l.failures {
		if i == 5 {
			t.Errorf("and %d more", len(l.failures)-i)
			break
		}
		t.Error(f)
	}
	if l.direct.Load() < atLeast || l.throughServer.Load() == 0 {
		t.Errorf("%d direct reviews and %d writes are too few; want at least %d", l.direct.Load(), l.throughServer.Load(), atLeast)
	}
}

// roots returns the CAs that the API server trusts: those in the webhook configuration.
func roots(ctx context.Context) (*x509.CertPool, error) {
	var v admissionregv1.ValidatingWebhookConfiguration
	if err := shared.Client.Get(ctx, client.ObjectKey{Name: "flux-admission"}, &v); err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(v.Webhooks[0].ClientConfig.CABundle) {
		return nil, errors.New("the webhook configuration has no CA bundle")
	}
	return pool, nil
}

// reviews sends 200 reviews per second over persistent connections. Every half second it opens new ones, with the CAs
// that are published by then.
func (l *load) reviews(ctx context.Context) {
	raw, err := kustomization("flux-system", "direct").MarshalJSON()
	if err != nil {
		l.fail("writing a review: %v", err)
		return
	}
	request := &admissionv1.AdmissionRequest{
		UID: "direct", Kind: metav1.GroupVersionKind{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: "Kustomization"},
		Namespace: "flux-system", Name: "direct", Operation: admissionv1.Create,
	}
	request.Object.Raw = raw
	body, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request})
	if err != nil {
		l.fail("writing a review: %v", err)
		return
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	var sending sync.WaitGroup
	defer sending.Wait()
	var c *http.Client
	for n := 0; ctx.Err() == nil; n++ {
		if n%100 == 0 {
			pool, err := roots(ctx)
			if err != nil {
				if ctx.Err() == nil {
					l.fail("reading the CA bundle: %v", err)
				}
				return
			}
			if c != nil {
				c.CloseIdleConnections()
			}
			c = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, MaxIdleConnsPerHost: 16,
			}}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		with := c
		sending.Go(func() {
			if err := post(context.WithoutCancel(ctx), with, body); err != nil {
				l.fail("a direct review: %v", err)
			}
			l.direct.Add(1)
		})
	}
}

func post(ctx context.Context, c *http.Client, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+shared.Address+"/validate?timeout=5s", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.Contains(data, []byte(`"uid":"direct","allowed":true}`)) {
		err = fmt.Errorf("response %d %s", resp.StatusCode, data)
	}
	return err
}

// writes creates a good and a bad object, by dry-run, over and over.
func (l *load) writes(ctx context.Context, refuses func() bool) {
	for ctx.Err() == nil {
		if err := shared.Client.Create(ctx, kustomization("flux-system", "good"), client.DryRunAll); err != nil && ctx.Err() == nil {
			l.fail("a good object: %v", err)
		}
		must := refuses()
		err := shared.Client.Create(ctx, kustomization("default", "bad"), client.DryRunAll)
		switch {
		case ctx.Err() != nil:
		case err == nil && must:
			l.fail("a bad object was allowed")
		case err != nil && !strings.Contains(err.Error(), "KS001"):
			l.fail("a bad object: %v", err)
		}
		l.throughServer.Add(2)
	}
}
