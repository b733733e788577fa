package failures_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// The ways in which a policy treats a release without a verdict.
const (
	byDefault = "the default"
	warn      = "Warn"
	deny      = "Deny"
)

// shortestCut is a little less than the 256 bytes that a warning may have, whichever characters it is cut between.
const shortestCut = 240

// trouble is a repository from which no chart can be read.
type trouble struct {
	name string
	// start starts the repository and returns the manifests of the HelmRepository, and of its Secret where it has one.
	start func(t *testing.T, ns string) string
	// reason matches the reason in the answer, and not that of any other failure.
	reason string
	// outcome is how the lookup of the chart is counted.
	outcome string
}

func troubles() []trouble {
	type starter = func(t *testing.T, ns string) string
	serves := func(s site) starter {
		return func(t *testing.T, ns string) string { return source(ns, serve(t, s), "") }
	}
	but := func(change func(*site)) starter {
		s := sound()
		change(&s)
		return serves(s)
	}
	redirects := func(to string) starter { return serves(site{index: redirect(to)}) }
	// A login that the repository rejects.
	refuses := func(change func(*site)) starter {
		s := sound()
		change(&s)
		return func(t *testing.T, ns string) string {
			return loginSecret(ns) + source(ns, serve(t, s), ", secretRef: {name: login}")
		}
	}
	page, cut := []byte("<!doctype html><title>Sign in</title>"), shared.packed[:len(shared.packed)/2]
	const (
		pending  = `is still being fetched after [0-9.]+m?s`
		loopback = `refused: 127\.0\.0\.1 is a link-local or loopback address`
	)
	return []trouble{
		{"down", func(_ *testing.T, ns string) string { return source(ns, nowhere(), "") }, `/index\.yaml cannot be fetched`, "error"},
		{"down, with a login in its URL", func(_ *testing.T, ns string) string { return source(ns, withLogin(nowhere()), "") }, `/index\.yaml cannot be fetched`, "error"},
		{"slow: 20 s for its index", but(func(s *site) { s.index = slowly(s.index) }), pending, "timeout"},
		{"slow: 20 s for its archive", but(func(s *site) { s.archive = slowly(s.archive) }), pending, "timeout"},
		{"silent", serves(site{index: silent}), pending, "timeout"},
		{"failing: 503", serves(site{index: status(http.StatusServiceUnavailable)}), `/index\.yaml returned 503 Service Unavailable`, "error"},
		{"lying about the archive's digest", but(func(s *site) { s.index = indexOf("airflow.tgz", []byte("another")) }), `the archive has the digest sha256:[0-9a-f]+`, "error"},
		{"huge archive with its size in the header", but(func(s *site) { s.archive = claims(maxArchive + 1) }), `/airflow\.tgz has 10485761 bytes, more than 10485760`, "error"},
		{"huge archive without its size in the header", but(func(s *site) { s.archive = endless }), `/airflow\.tgz has more than 10485760 bytes`, "error"},
		{"huge index", serves(site{index: claims(maxIndex + 1)}), `/index\.yaml has 52428801 bytes, more than 52428800`, "error"},
		{"redirecting to loopback", func(t *testing.T, ns string) string {
			return source(ns, serve(t, redirect(serve(t, sound())+"/index.yaml?token="+inARedirect)), "")
		}, loopback, "error"},
		{"with an archive on loopback", func(t *testing.T, ns string) string {
			return source(ns, serve(t, site{index: indexOf(serve(t, sound())+"/airflow.tgz?token="+inARedirect, shared.packed)}), "")
		}, loopback, "error"},
		{"redirecting to link-local", redirects("http://169.254.169.254/latest/meta-data?token=" + inARedirect), `refused: 169\.254\.169\.254 is a link-local or loopback address`, "error"},
		{"redirecting to itself", redirects("/index.yaml"), `redirects more than 5 times`, "error"},
		{"redirecting from https to http", func(t *testing.T, ns string) string {
			url, authority := serveTLS(t, redirect(serve(t, sound())+"/index.yaml"))
			return authoritySecret(ns, authority) + source(ns, url, ", certSecretRef: {name: authority}")
		}, `redirects from https to http`, "error"},
		{"TLS of an unknown authority", func(t *testing.T, ns string) string {
			url, _ := serveTLS(t, sound())
			return source(ns, url, "")
		}, `/index\.yaml cannot be fetched`, "error"},
		{"TLS for another name", func(t *testing.T, ns string) string {
			url, authority := serveTLS(t, sound())
			return authoritySecret(ns, authority) + source(ns, strings.Replace(url, "127.0.0.1", "localhost", 1), ", certSecretRef: {name: authority}")
		}, `/index\.yaml cannot be fetched`, "error"},
		{"no TLS behind an https URL", func(t *testing.T, ns string) string {
			return source(ns, strings.Replace(serve(t, sound()), "http://", "https://", 1), "")
		}, `/index\.yaml cannot be fetched`, "error"},
		{"credentials wrong: 401", refuses(func(s *site) { s.index = status(http.StatusUnauthorized) }),
			`/index\.yaml returned 401 Unauthorized: the source's credentials are missing or rejected`, "error"},
		{"credentials wrong for the archive: 403", refuses(func(s *site) { s.archive = status(http.StatusForbidden) }),
			`/airflow\.tgz returned 403 Forbidden: the source's credentials are missing or rejected`, "error"},
		{"credentials that are not there", func(t *testing.T, ns string) string {
			return source(ns, serve(t, sound()), ", secretRef: {name: login}")
		}, `its Secret failures-\w+/login does not exist`, "error"},
		{"without an index", serves(site{index: http.NotFound}), `/index\.yaml returned 404 Not Found`, "error"},
		{"without the archive", but(func(s *site) { s.archive = http.NotFound }), `/airflow\.tgz returned 404 Not Found`, "error"},
		{"index is not YAML", serves(site{index: answer([]byte("entries: ["))}), `the repository's index is not a YAML index`, "error"},
		{"index is a web page", serves(site{index: answer(page)}), `the repository's index is not a YAML index`, "error"},
		{"archive is not a gzip", serves(site{indexOf("airflow.tgz", page), answer(page)}), `reading the chart archive: it is not a gzip file`, "error"},
		{"archive is cut short", serves(site{indexOf("airflow.tgz", cut), answer(cut)}), `reading the chart archive: "airflow/[^"]+": unexpected EOF`, "error"},
	}
}

// Each policy gets repositories of its own, because failures are cached.
func TestWebhook_ChartRepositoryFailures(t *testing.T) {
	if shared.timeout >= slowness/2 {
		t.Fatalf("the API server waits %s for the webhook, which is too long for a repository that takes %s", shared.timeout, slowness)
	}
	all := troubles()
	var table strings.Builder
	for _, onUnknown := range []string{byDefault, warn, deny} {
		setPolicy(t, onUnknown)
		for _, tc := range all {
			t.Run(fmt.Sprintf("onUnknown is %s/%s", onUnknown, tc.name), func(t *testing.T) {
				verdict, words := review(t, tc, onUnknown)
				fmt.Fprintf(&table, "\n%-7s | %-38s | %-8s | %s", onUnknown, tc.name, verdict, words)
				if strings.HasSuffix(words, "…") {
					return // a warning is cut where the API server may cut it, and the names in it may be long
				}
				for _, other := range all {
					if matched := regexp.MustCompile(other.reason).MatchString(words); matched != (other.reason == tc.reason) {
						t.Errorf("the words %q\nmatch %q (%s): %t", words, other.reason, other.name, matched)
					}
				}
			})
		}
	}
	t.Logf("onUnknown, trouble, verdict, words:%s", table.String())
	recorded := shared.Webhook().Log()
	events, err := shared.ControlPlane.AuditEvents()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		recorded += fmt.Sprint(e.Annotations)
	}
	keepsSecrets(t, recorded)
}

// review sends a release with invalid values whose chart comes from a failing repository. It returns the outcome in the
// metrics and the text of the answer.
func review(t *testing.T, tc trouble, onUnknown string) (verdict, words string) {
	t.Helper()
	ns := shared.Namespace(t, "failures-")
	if answer := write(t, "apply", tc.start(t, ns)); answer.Err != nil {
		t.Fatal(answer.Err)
	}
	verdict = map[string]string{byDefault: "recorded", warn: "warned", deny: "denied"}[onUnknown]
	counters := []struct {
		name   string
		labels []string
	}{
		{"flux_admission_reviews_total", []string{"webhook=validate", "kind=HelmRelease", "outcome=" + verdict}},
		{"flux_admission_unknown_evaluations_total", []string{"rule=helm-values-schema"}},
		{"flux_admission_chart_lookups_total", []string{"source=HelmRepository", "outcome=" + tc.outcome}},
	}
	var before []float64
	for _, c := range counters {
		before = append(before, metric(t, c.name, c.labels...))
	}
	answer := try(t, release(ns, bad))
	for i, c := range counters {
		if now := metric(t, c.name, c.labels...); now <= before[i] {
			t.Errorf("%s%v stays at %v", c.name, c.labels, now)
		}
	}
	// In each case the audit log has the reason why there is no result, and the user gets the same.
	audited, others, _ := strings.Cut(annotation(t, ns, "unknown"), "\n")
	reason, ok := strings.CutPrefix(audited, "HR001 helm-values-schema the chart is unavailable: ")
	if !ok || !regexp.MustCompile(tc.reason).MatchString(reason) {
		t.Errorf("the audit annotation is %q, want %q in it", audited, tc.reason)
	}
	if strings.Count(others, reason) != 2 {
		t.Errorf("the audit annotation has %q for the other rules that need the chart, want the same reason for two", others)
	}
	full := "HR001 helm-values-schema could not be checked: the chart is unavailable: " + reason
	switch onUnknown {
	case byDefault:
		words = audited
		if answer.Err != nil || len(answer.Warnings) > 0 {
			t.Errorf("the answer is %s; want it allowed without a warning", answer)
		}
	case warn:
		words = strings.Join(answer.Warnings, "\n")
		start, cut := strings.CutSuffix(words, "…")
		if answer.Err != nil || words != full && !(cut && len(words) > shortestCut && strings.HasPrefix(full, start)) {
			t.Errorf("the answer is %s; want it allowed with the warning %s", answer, full)
		}
	case deny:
		words = answer.String()
		if answer.Err == nil || !strings.Contains(words, "Error from server (Forbidden)") || !strings.HasSuffix(words, "denied the request: "+full) {
			t.Errorf("the answer is %s; want a denial: %s", answer, full)
		}
	}
	keepsSecrets(t, answer.String())
	return verdict, words
}

func keepsSecrets(t *testing.T, text string) {
	t.Helper()
	for _, credential := range []string{login, password, inTheURL, inARedirect} {
		for _, form := range []string{credential, url.QueryEscape(credential)} {
			if strings.Contains(text, form) {
				t.Errorf("%q is quoted", form)
			}
		}
	}
}

// The result for a slow source is counted, logged and known to the next review. A source that never answers is abandoned.
func TestWebhook_SlowChartRepository(t *testing.T) {
	setPolicy(t, byDefault)
	slow, never := shared.Namespace(t, "failures-"), shared.Namespace(t, "failures-")
	repository := sound()
	repository.index = slowly(repository.index)
	for ns, s := range map[string]site{slow: repository, never: {index: silent}} {
		if answer := write(t, "apply", source(ns, serve(t, s), "")); answer.Err != nil {
			t.Fatal(answer.Err)
		}
	}
	fetches, evaluations := "flux_admission_chart_fetch_duration_seconds", "flux_admission_deferred_evaluations_total"
	fetched := metric(t, fetches, "source=HelmRepository", "outcome=fetched")
	failed := metric(t, fetches, "source=HelmRepository", "outcome=error")
	invalid := metric(t, evaluations, "rule=helm-values-schema", "outcome=invalid")
	unknown := metric(t, evaluations, "rule=helm-values-schema", "outcome=unknown")
	for _, ns := range []string{slow, never} {
		// A dry-run is not evaluated again.
		if answer := write(t, "create", release(ns, bad)); answer.Err != nil {
			t.Fatalf("before there is a result: %v", answer.Err)
		}
	}
	eventually(t, "the deferred evaluations are counted", func() bool {
		return metric(t, evaluations, "rule=helm-values-schema", "outcome=invalid") == invalid+1 && metric(t, evaluations, "rule=helm-values-schema", "outcome=unknown") > unknown
	})
	if now := metric(t, fetches, "source=HelmRepository", "outcome=fetched"); now != fetched+1 {
		t.Errorf("%v charts were fetched, want %v", now, fetched+1)
	}
	if now := metric(t, fetches, "source=HelmRepository", "outcome=error"); now <= failed {
		t.Errorf("%v fetches failed, as before", now)
	}
	// One log line has the namespace and everything else.
	for name, want := range map[string]*regexp.Regexp{
		"the deferred evaluation":             regexp.MustCompile(`"Evaluated release after its review".*"helmRelease":"` + slow + `/airflow".*"outcome":"invalid".*HR001.*existingSecret`),
		"the failed deferred evaluation":      regexp.MustCompile(`"Evaluated release after its review".*"helmRelease":"` + never + `/airflow".*"outcome":"unknown".*HR001.*/index\.yaml cannot be fetched`),
		"the reason why a chart was not read": regexp.MustCompile(`"Failed to fetch chart".* of HelmRepository ` + never + `/charts".*no response in time`),
	} {
		eventually(t, "the log has "+name, func() bool { return want.MatchString(shared.Webhook().Log()) })
	}
	// An update that changes nothing is not denied.
	if answer := write(t, "delete", release(slow, bad)); answer.Err != nil {
		t.Fatal(answer.Err)
	}
	if answer := try(t, release(slow, bad)); answer.Err == nil || !strings.Contains(answer.Err.Error(), "/data/metadataConnection") {
		t.Errorf("the next review of bad values: %s; want a denial", answer)
	}
	if answer := try(t, release(slow, good)); answer.Err != nil {
		t.Errorf("the next review of good values: %s; want it allowed", answer)
	}
	keepsSecrets(t, shared.Webhook().Log())
}

// A redirect to loopback is rejected because of its address and for no other reason.
func TestWebhook_RedirectToLoopback(t *testing.T) {
	restart(t, "--charts-allow-local")
	defer restart(t)
	setPolicy(t, byDefault)
	ns := shared.Namespace(t, "failures-")
	elsewhere := serve(t, sound())
	moved := func(w http.ResponseWriter, r *http.Request) { redirect(elsewhere+r.URL.Path)(w, r) }
	if answer := write(t, "apply", source(ns, serve(t, site{moved, moved}), "")); answer.Err != nil {
		t.Fatal(answer.Err)
	}
	if answer := try(t, release(ns, bad)); answer.Err == nil || !strings.Contains(answer.Err.Error(), "/data/metadataConnection") {
		t.Errorf("bad values: %s; want a denial", answer)
	}
	if answer := try(t, release(ns, good)); answer.Err != nil {
		t.Errorf("good values: %s; want them allowed", answer)
	}
}

// restart starts the webhook server again, with arguments added.
func restart(t *testing.T, args ...string) {
	t.Helper()
	if err := shared.Webhook().Restart(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}
