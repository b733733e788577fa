package webhook_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/flux-admission/flux-admission/validators"
)

// TestServer_ShutdownDropsNoRequest sends reviews over persistent connections to one server, which drains and shuts
// down meanwhile. The clients use a second server as soon as the first is not ready, as clients of a Service do.
func TestServer_ShutdownDropsNoRequest(t *testing.T) {
	slow := &fakePolicy{review: func(context.Context, validators.Request) { <-time.After(2 * time.Millisecond) }}
	first := serveTLS(t, slow)
	second := serveTLS(t, slow)
	body := []byte(write{operation: admissionv1.Create, object: kustomization}.body(t))
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a throwaway certificate
		MaxIdleConnsPerHost: 32,
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
				url := first.url
				if first.webhooks.Ready() != nil {
					url = second.url
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
	first.webhooks.Drain()
	reach(100) // the shutdown delay, in which the first server still responds
	if err := first.http.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	reach(500)
	close(stop)
	clients.Wait()
	client.CloseIdleConnections()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed, the first with %s", failed.Load(), responses.Load(), *firstFailure.Load())
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
