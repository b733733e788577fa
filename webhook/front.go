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
	"golang.org/x/sync/semaphore"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flux-admission/flux-admission/webhook/metrics"
)

const (
	// maxBody bounds a request, in bytes. etcd stores no object above 1.5 MiB, so a review of one that can be stored, the old one beside it,
	// is well below.
	maxBody = 7 << 20
	// maxBodies bounds the sum of the requests that are read at a time, in bytes.
	maxBodies = maxBody + 1<<20
	// minWeight is what a small request counts for, which bounds their number.
	minWeight = 16 << 10
	// maxDecoded bounds the memory that all requests being evaluated take at a time, in bytes, as far as that can be told from their text. A
	// request that would take more by itself is not evaluated.
	maxDecoded = 128 << 20

	// defaultTimeout is the deadline of a request that names none; the API server does, in the query.
	defaultTimeout = 5 * time.Second
	// maxTimeout is the longest that the API server may be told to wait for a webhook.
	maxTimeout = 30 * time.Second
)

// reviewer answers one admission request. Its error says why it could not evaluate the request, without quoting it.
type reviewer interface {
	review(ctx context.Context, req *request) (*admissionv1.AdmissionResponse, metrics.Verdict, error)
	// failed returns how to refuse a request that could not be evaluated; nil when it is allowed.
	failed(req *request, err error) *admissionv1.AdmissionResponse
}

// front is the HTTP side of a webhook. It takes the place of controller-runtime's own, which answers "not allowed" to what it cannot read and
// to what panics, whatever the failure policy: here only a policy's decision refuses.
type front struct {
	webhook  metrics.Webhook
	reviewer reviewer
	limits   *limits
	metrics  *metrics.Metrics
	log      logr.Logger
}

// answer is a response with what is counted about it.
type answer struct {
	response *admissionv1.AdmissionResponse
	verdict  metrics.Verdict
}

// ServeHTTP reads one AdmissionReview, has it answered within the time that the API server waits, and writes the answer.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "an AdmissionReview is sent by POST", http.StatusMethodNotAllowed)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout(r))
	defer cancel()
	var req request
	a, release := f.take(ctx, w, r, &req)
	defer release()
	if a != nil {
		f.write(w, start, &req, *a)
		return
	}
	// The deadline has its answer written from aside; what is still being evaluated then goes on and is not waited for. This costs less than
	// evaluating aside: the deadline is the exemption.
	var once sync.Once
	stop := context.AfterFunc(ctx, func() {
		once.Do(func() {
			w.Header().Set("Connection", "close") // it stays busy until the evaluation ends
			f.write(w, start, &req, answer{f.failed(&req, errors.New("no verdict in time")), metrics.Timeout})
			_ = http.NewResponseController(w).Flush() // without it the answer waits as well
		})
	})
	verdict := f.review(ctx, &req)
	stop()
	once.Do(func() { f.write(w, start, &req, verdict) })
}

// limits bound the memory of all webhooks together, whatever a tenant sends.
type limits struct {
	bodies, decoded *semaphore.Weighted
}

func newLimits() *limits {
	return &limits{bodies: semaphore.NewWeighted(maxBodies), decoded: semaphore.NewWeighted(maxDecoded)}
}

// take reads and decodes a request within the limits, or says how to answer it unread. The function gives back what it took.
func (f *front) take(ctx context.Context, w http.ResponseWriter, r *http.Request, req *request) (*answer, func()) {
	var taken []func()
	acquire := func(s *semaphore.Weighted, weight int64) error {
		if err := s.Acquire(ctx, weight); err != nil {
			return errors.New("too many requests at a time")
		}
		f.metrics.InFlight(weight)
		taken = append(taken, func() {
			f.metrics.InFlight(-weight)
			s.Release(weight)
		})
		return nil
	}
	release := func() {
		for _, f := range taken {
			f()
		}
	}
	weight := r.ContentLength
	if weight < 0 || weight > maxBody {
		weight = maxBody
	}
	if err := acquire(f.limits.bodies, max(weight, minWeight)); err != nil {
		req.UID = peekUID(r.Body)
		return &answer{f.failed(req, err), metrics.Overloaded}, release
	}
	body, err := f.read(ctx, w, r)
	if err != nil {
		req.UID = peekUID(bytes.NewReader(body))
		return &answer{f.failed(req, err), metrics.Failed}, release
	}
	size := evaluatedSize(body)
	if size > maxDecoded {
		req.UID = peekUID(bytes.NewReader(body))
		return &answer{f.failed(req, errors.New("the object is too complex")), metrics.Overloaded}, release
	}
	if err := acquire(f.limits.decoded, size); err != nil {
		req.UID = peekUID(bytes.NewReader(body))
		return &answer{f.failed(req, err), metrics.Overloaded}, release
	}
	if err := decode(body, req); err != nil {
		if req.UID == "" {
			req.UID = peekUID(bytes.NewReader(body))
		}
		return &answer{f.failed(req, err), metrics.Failed}, release
	}
	return nil, release
}

// evaluatedSize estimates the memory in bytes that a JSON text takes when it is decoded into maps, and once more for the copies that rules make. The
// factors are measured: a small map takes some 340 bytes, whatever its three bytes of text are.
func evaluatedSize(body []byte) int64 {
	count := func(c byte) int64 { return int64(bytes.Count(body, []byte{c})) }
	return 2 * (int64(len(body)) + 340*count('{') + 40*count('[') + 24*count(','))
}

// write counts and writes an answer.
func (f *front) write(w http.ResponseWriter, start time.Time, req *request, a answer) {
	a.response.UID = req.UID
	f.metrics.Review(f.webhook, req.groupKind(), string(req.Operation), req.DryRun, a.verdict, time.Since(start))
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}, Response: a.response,
	})
	if err != nil {
		f.log.Error(err, "An answer could not be written")
		http.Error(w, "the answer could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		f.log.V(1).Info("The client was gone before its answer", "error", err.Error())
	}
}

// review asks the reviewer and recovers.
func (f *front) review(ctx context.Context, req *request) (a answer) {
	defer func() {
		if v := recover(); v != nil {
			f.metrics.Panic()
			f.log.Error(panicked(v), "A review panicked", "stack", string(debug.Stack()))
			a = answer{f.failed(req, errors.New("internal error")), metrics.Failed}
		}
	}()
	response, verdict, err := f.reviewer.review(ctx, req)
	if err != nil {
		return answer{f.failed(req, err), metrics.Failed}
	}
	return answer{response, verdict}
}

// panicked says what a panic was about. A runtime error names types and indexes; any other value may quote a secret and is not shown.
func panicked(v any) error {
	var runtimeError runtime.Error
	if err, ok := v.(error); ok && errors.As(err, &runtimeError) {
		return fmt.Errorf("panic: %w", runtimeError)
	}
	return fmt.Errorf("panic with a %T", v)
}

// failed answers a request without a verdict.
func (f *front) failed(req *request, err error) (response *admissionv1.AdmissionResponse) {
	f.log.Info("A request was not evaluated", "webhook", string(f.webhook), "reason", err.Error(), "kind", req.Kind.Kind,
		"namespace", req.Namespace, "name", req.Name, "uid", string(req.UID))
	defer func() {
		if v := recover(); v != nil {
			f.metrics.Panic()
			f.log.Error(panicked(v), "Answering a failed review panicked", "stack", string(debug.Stack()))
			response = unevaluated(err)
		}
	}()
	if response := f.reviewer.failed(req, err); response != nil {
		return response
	}
	return unevaluated(err)
}

// unevaluated allows what could not be evaluated, and leaves a trace of that in the audit log and for the user.
func unevaluated(err error) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{
		Allowed:          true,
		Warnings:         []string{cut(plain("flux-admission did not check this object: "+err.Error()), maxWarning)},
		AuditAnnotations: map[string]string{auditError: cut(plain(err.Error()), maxAnnotation)},
	}
}

// read reads the body. With an error it returns what was read until then.
func (f *front) read(ctx context.Context, w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if deadline, ok := ctx.Deadline(); ok && r.ContentLength != 0 {
		// A client that sends slowly must not keep its share of the memory for longer than it may wait itself.
		_ = http.NewResponseController(w).SetReadDeadline(deadline) // a server without deadlines has ReadTimeout
	}
	var buffer bytes.Buffer
	if r.ContentLength > 0 && r.ContentLength <= maxBody {
		buffer.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	n, err := buffer.ReadFrom(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return buffer.Bytes(), fmt.Errorf("reading the request: %w", err)
	case n > maxBody:
		return buffer.Bytes(), fmt.Errorf("the request is larger than %d bytes", maxBody)
	}
	return buffer.Bytes(), nil
}

// timeout is how long to work on the request: a tenth less than the API server waits, which is for the way back.
func timeout(r *http.Request) time.Duration {
	d, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || d <= 0 {
		d = defaultTimeout
	}
	d = min(d, maxTimeout)
	return d - d/10
}

// peekUID reads the UID from the beginning of an AdmissionReview that is not read as a whole: an answer without it would count as none.
func peekUID(r io.Reader) types.UID {
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
