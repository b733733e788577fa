package webhook

import (
	"crypto/tls"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// Server answers the webhooks over HTTP.
type Server struct {
	mux      *http.ServeMux
	draining atomic.Bool
}

// NewServer returns a server of the three webhooks, which share one bound on what is evaluated at a time.
func NewServer(v *Validator, m *Mutator, p *PolicyValidator, counts *metrics.Metrics, log logr.Logger) *Server {
	s := &Server{mux: http.NewServeMux()}
	shared := newLimits()
	for path, f := range map[string]*front{
		webhookconfig.ValidatePath: {webhook: metrics.Validate, reviewer: v},
		webhookconfig.MutatePath:   {webhook: metrics.Mutate, reviewer: m},
		webhookconfig.PolicyPath:   {webhook: metrics.Policy, reviewer: p},
	} {
		f.limits, f.metrics, f.log = shared, counts, log
		s.mux.Handle(path, f)
	}
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		// The API server keeps its connections for a long time. Told so, it opens the next one to another replica, instead of sending a
		// request at the moment when this one closes.
		w.Header().Set("Connection", "close")
	}
	s.mux.ServeHTTP(w, r)
}

// Drain makes every connection close after its next answer, and Ready fail.
func (s *Server) Drain() { s.draining.Store(true) }

// Ready is the check that the server is not about to stop.
func (s *Server) Ready() error {
	if s.draining.Load() {
		return errors.New("shutting down")
	}
	return nil
}

// HTTP returns the http.Server to serve with, by ServeTLS without files.
func (s *Server) HTTP(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *http.Server {
	return &http.Server{
		Handler:           s,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate, NextProtos: []string{"h2", "http/1.1"}},
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       maxTimeout + 10*time.Second,
		WriteTimeout:      maxTimeout + 20*time.Second,
		// Longer than the 90 s after which the API server gives up an idle connection: of two that close at the same time, one sends into
		// nothing.
		IdleTimeout:    3 * time.Minute,
		MaxHeaderBytes: 64 << 10,
	}
}
