package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/webhook/budget"
	"github.com/flux-admission/flux-admission/webhook/metrics"
)

const (
	// defaultTimeout applies to a request without the query parameter timeout, which the API server always sets.
	defaultTimeout = 5 * time.Second
	// maxTimeout is the longest timeout that a webhook configuration can set.
	maxTimeout = 30 * time.Second
	// firstBytes is how much of a body is read without taking memory from the budget, in bytes.
	firstBytes = 4 << 10
	// maxBodyTime is the longest time for a request body, from its header. The API server sends header and body at once.
	maxBodyTime = 2 * time.Second
)

// A result is a response to the API server and the outcome that is counted for it.
type result struct {
	response *admissionv1.AdmissionResponse
	outcome  metrics.Outcome
}

// An evaluator evaluates admission requests.
type evaluator interface {
	// evaluate returns the result of one request. Its error is why the request could not be evaluated, without quoting it.
	evaluate(ctx context.Context, req *request) (result, error)
	// refusal returns the response to a request that could not be evaluated; nil if it is allowed.
	refusal(req *request, err error) *admissionv1.AdmissionResponse
}

// Handler is the HTTP handler of one webhook. controller-runtime's handler denies what it cannot decode and what
// panics, whatever the failure policy; this one denies only what the policy denies.
type Handler struct {
	webhook   metrics.Webhook
	evaluator evaluator
	budget    *budget.Budget
	metrics   *metrics.Metrics
	log       logr.Logger
}

// ServeHTTP evaluates one AdmissionReview and responds before the API server's timeout.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "an AdmissionReview is sent with POST", http.StatusMethodNotAllowed)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout(r))
	defer cancel()
	var req request
	evaluation, unread := h.readRequest(ctx, w, r, &req)
	if unread != nil {
		h.write(w, start, &req, *unread)
		return
	}
	// On timeout another goroutine writes the response; the evaluation keeps running and its result is dropped. Evaluating
	// in a goroutine per request instead would cost more in the common case.
	var once sync.Once
	stop := context.AfterFunc(ctx, func() {
		evaluation.Overdue()
		once.Do(func() {
			w.Header().Set("Connection", "close") // the connection is busy until the evaluation ends
			h.write(w, start, &req, result{h.unevaluated(&req, errors.New("the evaluation timed out")), metrics.Timeout})
			_ = http.NewResponseController(w).Flush() // otherwise the response waits for the evaluation, too
		})
	})
	var running <-chan struct{}
	res := h.evaluate(validators.WithOverrun(ctx, func(ended <-chan struct{}) { running = ended }), &req)
	stop()
	once.Do(func() { h.write(w, start, &req, res) })
	if running == nil {
		evaluation.End()
		return
	}
	// A rule ignores its deadline. It must not hold the connection.
	evaluation.Overdue()
	go func() {
		<-running
		evaluation.End()
	}()
}

// readRequest reads and decodes a request within the budget. It returns the memory of its objects, or a result if that
// fails.
func (h *Handler) readRequest(
	ctx context.Context, w http.ResponseWriter, r *http.Request, req *request,
) (*budget.Evaluation, *result) {
	memory := h.budget.Body()
	defer memory.Release()
	failed := func(body []byte, err error, o metrics.Outcome) *result {
		if req.UID == "" {
			req.UID = uidFromPrefix(bytes.NewReader(body))
		}
		return &result{h.unevaluated(req, err), o}
	}
	body, err := readBody(ctx, w, r, memory)
	if err != nil {
		outcome := metrics.Failed
		if errors.Is(err, budget.ErrOverloaded) {
			outcome = metrics.Overloaded
		}
		return nil, failed(body, err, outcome)
	}
	size, spans, both := measure(body)
	if size > budget.MaxEvaluation {
		var blanked []validators.Path
		size, blanked = reduce(body, size, spans, budget.MaxEvaluation/2)
		req.incomplete = &errTooComplex{blanked}
		both = parts{} // blanked as well
	}
	if size > budget.MaxEvaluation {
		return nil, failed(body, errTooComplex{}, metrics.Overloaded)
	}
	evaluation, err := h.budget.Evaluate(ctx, size)
	if err != nil {
		return nil, failed(body, err, metrics.Overloaded)
	}
	req.size = size
	body, equal := withoutEqual(body, both)
	err = decode(body, req)
	if err == nil {
		err = share(req, equal)
	}
	if err != nil {
		evaluation.End()
		return nil, failed(body, err, metrics.Failed)
	}
	return evaluation, nil
}

// write counts and writes a result.
func (h *Handler) write(w http.ResponseWriter, start time.Time, req *request, res result) {
	res.response.UID = req.UID
	h.metrics.Review(h.webhook, req.groupKind(), string(req.Operation), req.DryRun, res.outcome, time.Since(start))
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Response: res.response,
	})
	if err != nil {
		h.log.Error(err, "Failed to encode response")
		http.Error(w, "the response could not be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		h.log.V(1).Info("Client disconnected before the response", "err", err.Error())
	}
}

// evaluate calls the evaluator and recovers its panics.
func (h *Handler) evaluate(ctx context.Context, req *request) (res result) {
	defer func() {
		if v := recover(); v != nil {
			h.metrics.Panic()
			h.log.Error(panicError(v), "Evaluation panicked", "stack", string(debug.Stack()))
			res = result{h.unevaluated(req, errors.New("internal error")), metrics.Failed}
		}
	}()
	res, err := h.evaluator.evaluate(ctx, req)
	if err != nil {
		return result{h.unevaluated(req, err), metrics.Failed}
	}
	return res
}

// panicError describes a recovered panic. A runtime error names types and indexes; any other value may quote a secret
// and is not shown.
func panicError(v any) error {
	var runtimeError runtime.Error
	if err, ok := v.(error); ok && errors.As(err, &runtimeError) {
		return fmt.Errorf("panic: %w", runtimeError)
	}
	return fmt.Errorf("panic with a %T", v)
}

// unevaluated returns the response to a request that could not be evaluated.
func (h *Handler) unevaluated(req *request, err error) (response *admissionv1.AdmissionResponse) {
	h.log.Error(err, "Failed to evaluate request", "webhook", string(h.webhook), "kind", req.Kind.Kind,
		"object", req.key(), "uid", string(req.UID))
	defer func() {
		if v := recover(); v != nil {
			h.metrics.Panic()
			h.log.Error(panicError(v), "Refusing a request panicked", "stack", string(debug.Stack()))
			response = allowedUnevaluated(err)
		}
	}()
	if response := h.evaluator.refusal(req, err); response != nil {
		return response
	}
	return allowedUnevaluated(err)
}

// allowedUnevaluated allows a request that could not be evaluated, with a warning and an audit annotation.
func allowedUnevaluated(err error) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{
		Allowed:          true,
		Warnings:         []string{cut(plain("flux-admission did not evaluate this object: "+err.Error()), maxWarning)},
		AuditAnnotations: map[string]string{auditError: cut(plain(err.Error()), maxAnnotation)},
	}
}

// readBody reads the request body, and takes memory for it as it arrives. With an error it returns what was read until then.
func readBody(ctx context.Context, w http.ResponseWriter, r *http.Request, memory *budget.Body) ([]byte, error) {
	// A client that sends slowly must not hold its memory for long.
	setDeadline := func() bool { return false }
	if deadline, ok := ctx.Deadline(); ok && r.ContentLength != 0 {
		control := http.NewResponseController(w)
		setDeadline = func() bool {
			return control.SetReadDeadline(time.Now().Add(min(time.Until(deadline), maxBodyTime))) == nil
		}
		if setDeadline() { // a server without deadlines, as in a test, has no such limit
			// The server reads on to notice that the client has gone: a deadline there would end the evaluation.
			defer func() { _ = control.SetReadDeadline(time.Time{}) }()
		}
	}
	body := make([]byte, 0, firstBytes)
	for {
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return body, fmt.Errorf("reading the request: %w", err)
		case len(body) < cap(body):
			continue
		case len(body) > budget.MaxBody:
			return body, fmt.Errorf("the request is larger than %d bytes", budget.MaxBody)
		}
		size := 2 * len(body)
		if r.ContentLength >= int64(len(body)) {
			size = min(size, int(r.ContentLength)+1) // with room to read the end
		}
		size = min(size, budget.MaxBody+1)
		waited, err := memory.Grow(ctx, int64(size))
		if err != nil {
			return body, err
		}
		if waited {
			setDeadline() // the wait was not the client's fault
		}
		body = append(make([]byte, 0, size), body...)
	}
}

// timeout returns the time for a request: a tenth less than the API server waits, which is left for the network.
func timeout(r *http.Request) time.Duration {
	d, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || d <= 0 {
		d = defaultTimeout
	}
	d = min(d, maxTimeout)
	return d - d/10
}

// uidFromPrefix reads the UID from the first bytes of an AdmissionReview that is not decoded. The API server takes a
// response without the UID for a failed call.
func uidFromPrefix(r io.Reader) types.UID {
	d := json.NewDecoder(io.LimitReader(r, 4<<10))
	depth, key := 0, ""
	wantKey := true
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		switch t := token.(type) {
		case json.Delim:
			switch t {
			case '{', '[':
				if depth++; depth > 2 || t == '[' || depth == 2 && key != "request" {
					return "" // the UID is the first field of request
				}
				wantKey = true
			default:
				return ""
			}
		case string:
			switch {
			case wantKey:
				key, wantKey = t, false
			case depth == 2 && key == "uid":
				return types.UID(cut(t, 128))
			default:
				wantKey = true
			}
		default:
			wantKey = true
		}
	}
}
