package failures_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Logins that no answer, log line or audit event may quote.
const (
	login        = "reader-of-charts"
	password     = "not-the-password"
	inTheURL     = "written-into-the-url"
	inARedirect  = "signed-for-another-host"
	sizeOfBlocks = 1 << 20
	maxArchive   = 10 << 20
	maxIndex     = 50 << 20
)

// slowness is how long a slow repository takes: far longer than a review waits, and less than the webhook server's limit on
// fetching a chart.
const slowness = 20 * time.Second

// site is a repository: its index and the archive that the index names.
type site struct {
	index, archive http.HandlerFunc
}

func (s site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/index.yaml":
		s.index(w, r)
	case "/airflow.tgz":
		s.archive(w, r)
	default:
		http.NotFound(w, r)
	}
}

// sound is a repository that is not in trouble.
func sound() site {
	return site{index: indexOf("airflow.tgz", shared.packed), archive: answer(shared.packed)}
}

// indexOf answers with an index of one chart, at an address and with the digest of the archive.
func indexOf(url string, archive []byte) http.HandlerFunc {
	sum := sha256.Sum256(archive)
	return answer(fmt.Appendf(nil, "apiVersion: v1\nentries:\n  airflow:\n  - {apiVersion: v2, name: airflow, version: 1.16.0, urls: [%q], digest: %s}\n", url, hex.EncodeToString(sum[:])))
}

func answer(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "no entry for "+user+":"+pass)
	}
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
}

// endless sends blocks until the other side has enough.
func endless(w http.ResponseWriter, r *http.Request) {
	block := make([]byte, sizeOfBlocks)
	for r.Context().Err() == nil {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// claims announces the size of an answer and sends nothing of it.
func claims(size int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", strconv.Itoa(size)) }
}

// slowly begins an answer at once and finishes it much later.
func slowly(then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-time.After(slowness):
			then(w, r)
		case <-r.Context().Done():
		}
	}
}

// silent takes requests and answers none.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// serve starts a repository that ends with the test, without waiting for what it has not answered.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// serveTLS starts a repository over TLS and returns the authority of its certificate as PEM.
func serveTLS(t *testing.T, h http.Handler) (url, authority string) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it would tell of every handshake that fails
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// nowhere is the address of a repository that has gone.
func nowhere() string {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	return server.URL
}

// withLogin puts a login into a URL.
func withLogin(url string) string {
	return strings.Replace(url, "://", "://"+login+":"+inTheURL+"@", 1)
}

// source is the manifest of a HelmRepository; extra is added to its spec.
func source(ns, url, extra string) string {
	return fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\nmetadata: {name: charts, namespace: %s}\nspec: {interval: 1h, url: %q%s}\n", ns, url, extra)
}

// loginSecret is the manifest of a Secret with a login that no server here accepts.
func loginSecret(ns string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: login, namespace: %s}\nstringData: {username: %s, password: %s}\n---\n", ns, login, password)
}

func authoritySecret(ns, authority string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: authority, namespace: %s}\nstringData: {ca.crt: %q}\n---\n", ns, authority)
}
