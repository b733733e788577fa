package webhook

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// Server is the HTTP server of the webhooks.
type Server struct {
	mux         *http.ServeMux
	draining    atomic.Bool
	connections *connections
}

// NewServer returns a server of the three webhooks, which share one limit on the memory of concurrent requests.
func NewServer(v *Validator, m *Mutator, p *PolicyValidator, counts *metrics.Metrics, log logr.Logger) *Server {
	s := &Server{mux: http.NewServeMux(), connections: newConnections()}
	counts.Connections(s.connections.size)
	shared := newLimits()
	for path, h := range map[string]*Handler{
		webhookconfig.ValidatePath: {webhook: metrics.Validate, evaluator: v},
		webhookconfig.MutatePath:   {webhook: metrics.Mutate, evaluator: m},
		webhookconfig.PolicyPath:   {webhook: metrics.Policy, evaluator: p},
	} {
		h.limits, h.metrics, h.log = shared, counts, log
		s.mux.Handle(path, h)
	}
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		// The API server keeps connections open for a long time. With this header it opens the next one, to another replica,
		// instead of sending a request while this one closes.
		w.Header().Set("Connection", "close")
	}
	s.mux.ServeHTTP(w, r)
}

// Drain makes Ready fail and closes every connection after its next response.
func (s *Server) Drain() { s.draining.Store(true) }

// Ready returns an error once the server is draining.
func (s *Server) Ready() error {
	if s.draining.Load() {
		return errors.New("shutting down")
	}
	return nil
}

// Listener returns a TLS listener for the server that HTTP returned, with a limit on its connections.
func (s *Server) Listener(l net.Listener, server *http.Server) net.Listener {
	return tls.NewListener(s.connections.limit(l), server.TLSConfig)
}

// HTTP returns the http.Server, for the listener that Listener returns. It speaks HTTP/1.1 only, as the API server does
// with the webhooks of a Service: over HTTP/2, one connection carries any number of requests, and a response that is
// written at the deadline only ends with the evaluation.
func (s *Server) HTTP(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: s,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: certificate, NextProtos: []string{"http/1.1"},
		},
		Protocols: &protocols,
		ConnState: s.connections.changed,
		// The limit of the TLS handshake, too.
		ReadHeaderTimeout: 5 * time.Second,
		// The handler has a shorter deadline for the body, and none while it evaluates.
		ReadTimeout:  5*time.Second + maxBodyTime,
		WriteTimeout: maxTimeout + 20*time.Second,
		// Longer than the 90 s after which the API server closes an idle connection: if both ends closed it at the
		// same time, a request could be lost.
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
}
