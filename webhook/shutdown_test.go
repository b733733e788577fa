package webhook_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook"
	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// TestServer_ShutdownDropsNoRequest sends reviews over persistent connections to one server, which drains and shuts
// down meanwhile. The clients use a second server as soon as the first is not ready, as clients of a Service do.
func TestServer_ShutdownDropsNoRequest(t *testing.T) {
	certificate, err := throwaway()
	if err != nil {
		t.Fatal(err)
	}
	start := func() (*webhook.Server, *http.Server, string) {
		counts := metrics.New(prometheus.NewRegistry())
		slow := func() webhook.Policy {
			return &fakePolicy{review: func(context.Context, validators.Request) { <-time.After(2 * time.Millisecond) }}
		}
		s := webhook.NewServer(
			&webhook.Validator{Policy: slow, Lookup: lookup.NewMemory(), Metrics: counts, Log: logr.Discard()},
			&webhook.Mutator{Policy: slow, Lookup: lookup.NewMemory(), Log: logr.Discard()}, &webhook.PolicyValidator{}, counts, logr.Discard(),
		)
		server := s.HTTP(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil })
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(tls.NewListener(listener, server.TLSConfig)) }()
		t.Cleanup(func() { _ = server.Close() })
		return s, server, "https://" + listener.Addr().String() + webhookconfig.ValidatePath
	}
	first, firstServer, firstURL := start()
	_, _, secondURL := start()
	body := []byte(write{operation: admissionv1.Create, object: kustomization}.body(t))
	for _, protocol := range []string{"http/1.1", "h2"} {
		if protocol == "h2" {
			first, firstServer, firstURL = start()
		}
		client := &http.Client{Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}, //nolint:gosec // a throwaway certificate
			ForceAttemptHTTP2: protocol == "h2", MaxIdleConnsPerHost: 32,
		}}
		var responses, failed atomic.Int64
		var firstFailure atomic.Pointer[string]
		stop := make(chan struct{})
		var clients sync.WaitGroup
		for range 16 {
			clients.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					url := firstURL
					if first.Ready() != nil {
						url = secondURL
					}
					if err := send(t.Context(), client, url, body); err != nil {
						failed.Add(1)
						text := err.Error()
						firstFailure.CompareAndSwap(nil, &text)
					}
					responses.Add(1)
				}
			})
		}
		reach := func(n int64) {
			for from := responses.Load(); responses.Load() < from+n; {
				<-time.After(time.Millisecond)
			}
		}
		reach(500)
		first.Drain()
		reach(100) // the shutdown delay, in which the first server still responds
		if err := firstServer.Shutdown(t.Context()); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		reach(500)
		close(stop)
		clients.Wait()
		client.CloseIdleConnections()
		if failed.Load() > 0 {
			t.Errorf("%s: %d of %d requests failed, the first with %s", protocol, failed.Load(), responses.Load(), *firstFailure.Load())
		}
	}
}

func send(ctx context.Context, client *http.Client, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
