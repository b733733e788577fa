package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/flux-admission/flux-admission/webhook/budget"
	"github.com/flux-admission/flux-admission/webhook/certs"
	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// Server is the HTTP server of the webhooks.
type Server struct {
	mux         *http.ServeMux
	metrics     *metrics.Metrics
	clients     Clients
	draining    atomic.Bool
	connections *connections
	budget      *budget.Budget
}

// Clients authenticates the clients of a Server. certs.Clients implements it.
type Clients interface {
	// Refuse returns why a client is not answered; empty if it is authenticated.
	Refuse(state *tls.ConnectionState) certs.Refusal
}

// NewServer returns a server of the three webhooks, which share one limit on the memory of concurrent requests.
func NewServer(v *Validator, m *Mutator, p *PolicyValidator, counts *metrics.Metrics, log logr.Logger) *Server {
	s := &Server{mux: http.NewServeMux(), metrics: counts, connections: newConnections()}
	counts.Connections(s.connections.size)
	s.budget = budget.New(counts)
	for path, h := range map[string]*Handler{
		webhookconfig.ValidatePath: {webhook: metrics.Validate, evaluator: v},
		webhookconfig.MutatePath:   {webhook: metrics.Mutate, evaluator: m},
		webhookconfig.PolicyPath:   {webhook: metrics.Policy, evaluator: p},
	} {
		h.budget, h.metrics, h.log = s.budget, counts, log
		s.mux.Handle(path, h)
	}
	return s
}

// Authenticate limits the server to the requests of authenticated clients. It must be called before HTTP.
func (s *Server) Authenticate(clients Clients) { s.clients = clients }

// ServeHTTP implements http.Handler. A request that is not authenticated is counted and nothing else: nobody can fill
// the log with it, and its body is not read.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.clients != nil {
		if refusal := s.clients.Refuse(r.TLS); refusal != "" {
			s.metrics.Unauthenticated(string(refusal))
			w.Header().Set("Connection", "close") // otherwise net/http reads on to the next request
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
	}
	if s.draining.Load() {
		// The API server keeps connections open for a long time. With this header it opens the next one, to another replica,
		// instead of sending a request while this one closes.
		w.Header().Set("Connection", "close")
	}
	s.mux.ServeHTTP(w, r)
}

// Drain makes Ready fail and closes every connection after its next response.
func (s *Server) Drain() { s.draining.Store(true) }

// Ready returns an error once the server is draining, and while it is overloaded.
func (s *Server) Ready() error {
	if s.draining.Load() {
		return errors.New("shutting down")
	}
	return s.budget.Ready()
}

// Defer takes memory for evaluating a request after its response; see budget.Budget.
func (s *Server) Defer(bytes int64) *budget.Evaluation { return s.budget.Defer(bytes) }

// Reserve takes memory of that for large requests, and waits for it until ctx ends. The caller calls the function to give it back.
func (s *Server) Reserve(ctx context.Context, bytes int64) (func(), error) {
	e, err := s.budget.Evaluate(ctx, bytes)
	if err != nil {
		return nil, fmt.Errorf("reserving memory: %w", err)
	}
	return e.End, nil
}

// Live returns an error when an evaluation does not end, so that only a restart gives back what it uses.
func (s *Server) Live() error { return s.budget.Live() }

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
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: certificate, NextProtos: []string{"http/1.1"},
	}
	if s.clients != nil {
		// ServeHTTP verifies the certificate: then a refusal is a response and a count, not a failed handshake, and a
		// changed CA counts on open connections. The names of accepted CAs are not sent.
		config.ClientAuth = tls.RequestClientCert
	}
	return &http.Server{
		Handler:   s,
		TLSConfig: config,
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
