package delivery

import (
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Cause is a stable name of what is wrong.
type Cause string

// The causes.
const (
	// CauseUnknown is a message that is not understood.
	CauseUnknown Cause = "Unknown"

	CauseNotFound           Cause = "NotFound"
	CauseKindMissing        Cause = "KindMissing"
	CauseVersionNotServed   Cause = "VersionNotServed"
	CauseKeyMissing         Cause = "KeyMissing"
	CausePathMissing        Cause = "PathMissing"
	CauseNotRead            Cause = "NotRead"
	CauseTerminating        Cause = "Terminating"
	CauseSuspended          Cause = "Suspended"
	CauseDependency         Cause = "DependencyNotReady"
	CauseDependencyKind     Cause = "DependencyOfOtherKind"
	CauseReadyExpr          Cause = "ReadyExprNotTrue"
	CauseRevisionLags       Cause = "RevisionLags"
	CauseCycle              Cause = "Cycle"
	CauseSource             Cause = "SourceNotReady"
	CauseArtifact           Cause = "ArtifactNotYetThere"
	CauseFetch              Cause = "FetchFailed"
	CauseAuthentication     Cause = "AuthenticationFailed"
	CauseVersion            Cause = "NoMatchingVersion"
	CauseVerification       Cause = "VerificationFailed"
	CauseBuild              Cause = "BuildFailed"
	CauseDecryption         Cause = "DecryptionFailed"
	CauseValues             Cause = "InvalidValues"
	CauseSchema             Cause = "InvalidObject"
	CauseImmutable          Cause = "ImmutableField"
	CauseForbidden          Cause = "Forbidden"
	CauseQuota              Cause = "QuotaExceeded"
	CauseConflict           Cause = "FieldConflict"
	CauseDenied             Cause = "AdmissionDenied"
	CauseWebhook            Cause = "WebhookUnavailable"
	CauseAPIService         Cause = "APIServiceUnavailable"
	CauseApply              Cause = "ApplyFailed"
	CauseNoNamespace        Cause = "NamespaceNotSet"
	CauseHealth             Cause = "HealthCheckFailed"
	CauseHealthCheckMissing Cause = "HealthCheckNamesNothing"
	CauseNotHealthy         Cause = "NotHealthy"
	CauseInstall            Cause = "InstallFailed"
	CauseUpgrade            Cause = "UpgradeFailed"
	CauseTest               Cause = "TestFailed"
	CauseUninstall          Cause = "UninstallFailed"
	CauseRollback           Cause = "RollbackFailed"
	CauseRetries            Cause = "RetriesExceeded"
	CauseAccess             Cause = "AccessDenied"
	CauseConfiguration      Cause = "InvalidConfiguration"
	CauseNotReconciled      Cause = "NotReconciled"
	CauseProgressing        Cause = "Progressing"
	CauseRetry              Cause = "WaitsForRetry"
	CauseTransient          Cause = "Unreachable"
)

// mention is an object that a message names.
type mention struct {
	// group is unknown where messages name the kind only.
	group      string
	groupKnown bool
	kind       string
	namespace  string
	// anyNamespace is set where a message names an object of a namespace without naming that.
	anyNamespace bool
	name         string
	// status is that of a health check.
	status string
}

// problem is what a message reports.
type problem struct {
	cause Cause
	// object is the object that could not be applied.
	object *mention
	// about are the objects that the cause is about: those that are missing or not ready.
	about []mention
	// versions are the API versions of kinds or API services that are not served, as GROUP/VERSION.
	versions []string
	// kind is the kind of CauseKindMissing.
	kind string
	// webhook is the name of CauseWebhook; service is that of its server, if the message has it.
	webhook string
	service Ref
	// truncated is set if the message ends within a list.
	truncated bool
}

// The shapes of messages. See the controllers' sources: kustomize-controller 1.9 and 1.10, helm-controller 1.4 to 1.7,
// source-controller 1.9 and 1.10, fluxcd/pkg/ssa, and apimachinery for the errors of the API server.
var (
	dependencyShape = regexp.MustCompile(`^(?:unable to get '([^'/]+)/([^'/]+)' dependency: |dependency '([^'/]+)/([^'/]+)' (not found: |is not ready according to readyExpr eval|is not ready|revision is not up to date))`)
	sourceShape     = regexp.MustCompile(`^(?:unable to get source|could not get Source object|failed to get source)\b`)
	applyShape      = regexp.MustCompile(`(?s)^(\S+) (dry-run failed(?: \(\w+\))?: |dry-run failed, (?:reason: \w+, )?error: |not found: |namespace not specified: |apply failed: |immutable field detected, |failed to migrate API version: |metadata\.managedFields cleanup failed: |is SOPS encrypted, )(.*)$`)
	healthShape     = regexp.MustCompile(`(?s)^(?:health check failed after \S+: )?(timeout waiting for|failed early due to stalled resources): \[(.*)$`)
	healthEntry     = regexp.MustCompile(`(\S+) status: '(\w+)'|can't determine status for ([^\s,\]]+)`)
	releaseShape    = regexp.MustCompile(`(?s)^(?:Helm (?:install|upgrade|test|uninstall) failed for release |Helm rollback to previous release |Helm uninstall remediation for release )\S+ with chart \S+?(?:: | failed: | succeeded)(.*)$`)
	valuesShape     = regexp.MustCompile(`^could not resolve (?:optional )?(Secret|ConfigMap) chart values reference '([^'/]+)/([^'/]+)' with key '([^']*)': (.*)`)
	substituteShape = regexp.MustCompile(`substitute from '(Secret|ConfigMap)/([^']+)' error: `)

	deniedShape      = regexp.MustCompile(`admission webhook "([^"]+)" denied the request`)
	policyShape      = regexp.MustCompile(`ValidatingAdmissionPolicy '[^']+' with binding '[^']+' denied request`)
	webhookShape     = regexp.MustCompile(`failed calling webhook "([^"]+)"`)
	serviceShape     = regexp.MustCompile(`Post "https://([^./"]+)\.([^./"]+)\.svc[:./]`)
	kindShape        = regexp.MustCompile(`no matches for kind "([^"]+)" in version "([^"]+)"`)
	terminatingShape = regexp.MustCompile(`unable to create new content in namespace (\S+) because it is being terminated`)
	notFoundShape    = regexp.MustCompile(`(?:^|[\s:;(\["'])([A-Za-z][A-Za-z0-9.-]*) "([^"]+)" not found`)
	discoveryShape   = regexp.MustCompile(`(?:unable to retrieve the complete list of server APIs|Discovery failed for some groups, \d+ failing): (.*)`)
	groupShape       = regexp.MustCompile(`([a-z0-9][a-z0-9.-]*/v[a-z0-9]+): `)
	staleShape       = regexp.MustCompile(`stale GroupVersion discovery: ([a-z0-9.-]+/v[a-z0-9]+)`)
	conflictShape    = regexp.MustCompile(`conflicts? with "[^"]+"|Apply failed with \d+ conflicts?`)
	rbacShape        = regexp.MustCompile(`cannot \w+ resource "[^"]+"|is attempting to grant RBAC permissions not currently held`)
	timeoutShape     = regexp.MustCompile(`Running health checks for revision .* with a timeout of (\S+)$`)
	objectShape      = regexp.MustCompile(`resource ([A-Z]\w*)/([a-z0-9.-]+)/(\S+) not ready\. status: (\w+)`)
)

// maxMessage is how much of a message is read, in bytes. The API server limits messages of conditions to 32 KiB.
const maxMessage = 32 << 10

func clip(message string) string {
	if len(message) > maxMessage {
		return message[:maxMessage]
	}
	return message
}

// parseDependency reads the message of a reason DependencyNotReady. The name of the cause is CauseUnknown for other
// messages.
func parseDependency(message string) problem {
	m := dependencyShape.FindStringSubmatch(clip(message))
	if m == nil {
		return problem{cause: CauseUnknown}
	}
	if m[1] != "" {
		return problem{cause: CauseNotFound, about: []mention{{namespace: m[1], name: m[2]}}}
	}
	p := problem{about: []mention{{namespace: m[3], name: m[4]}}}
	switch {
	case strings.HasPrefix(m[5], "not found"):
		p.cause = CauseNotFound
	case strings.HasSuffix(m[5], "readyExpr eval"):
		p.cause = CauseReadyExpr
	case strings.HasPrefix(m[5], "revision"):
		p.cause = CauseRevisionLags
	default:
		p.cause = CauseDependency
	}
	return p
}

// parseApply reads the message of an apply by kustomize-controller: of the reasons ReconciliationFailed and PruneFailed.
func parseApply(message string) problem {
	message = clip(message)
	m := applyShape.FindStringSubmatch(message)
	if m == nil {
		return parseError(message)
	}
	object, ok := parseObject(m[1])
	if !ok {
		return parseError(message)
	}
	p := parseError(m[3])
	switch {
	case strings.HasPrefix(m[2], "is SOPS"):
		p = problem{cause: CauseDecryption}
	case p.cause != CauseUnknown:
	case strings.HasPrefix(m[2], "namespace not specified"):
		p.cause = CauseNoNamespace
	case strings.HasPrefix(m[2], "immutable"):
		p.cause = CauseImmutable
	case strings.Contains(m[2], "(Forbidden)"), strings.Contains(m[2], "reason: Forbidden"):
		p.cause = CauseForbidden
	case strings.Contains(m[2], "(Invalid)"), strings.Contains(m[2], "reason: Invalid"):
		p.cause = CauseSchema
	default:
		p.cause = CauseApply
	}
	p.object = &object
	return p
}

// parseObject reads KIND/NAMESPACE/NAME or KIND/NAME.
func parseObject(s string) (mention, bool) {
	parts := strings.Split(s, "/")
	if slices.Contains(parts, "") || len(parts) < 2 || len(parts) > 3 || parts[0][0] < 'A' || parts[0][0] > 'Z' {
		return mention{}, false
	}
	out := mention{kind: parts[0], name: parts[len(parts)-1]}
	if len(parts) == 3 {
		out.namespace = parts[1]
	}
	return out, true
}

// parseHealth reads the message of a reason HealthCheckFailed.
func parseHealth(message string) problem {
	m := healthShape.FindStringSubmatch(clip(message))
	if m == nil {
		return problem{cause: CauseUnknown}
	}
	p := problem{cause: CauseHealth, truncated: !strings.HasSuffix(m[2], "]")}
	for _, entry := range healthEntry.FindAllStringSubmatch(m[2], -1) {
		name, status := entry[1], entry[2]
		if name == "" {
			name, status = entry[3], "Unknown"
		}
		object, ok := parseObject(name)
		if !ok {
			p.truncated = true
			continue
		}
		object.status = status
		p.about = append(p.about, object)
	}
	if len(p.about) == 0 {
		p.cause = CauseUnknown
	}
	return p
}

// parseRelease reads the message of a Helm action.
func parseRelease(message string) problem {
	m := releaseShape.FindStringSubmatch(clip(message))
	if m == nil {
		return problem{cause: CauseUnknown}
	}
	text := m[1]
	p := parseError(text)
	if p.cause != CauseUnknown && p.cause != CauseTransient {
		return p
	}
	if strings.Contains(text, "values don't meet the specifications of the schema") {
		return problem{cause: CauseValues}
	}
	// A Helm action that waited reports the objects that did not become ready, or a timeout only.
	for _, entry := range objectShape.FindAllStringSubmatch(text, -1) {
		p.about = append(p.about, mention{kind: entry[1], namespace: entry[2], name: strings.TrimSuffix(entry[3], ","), status: entry[4]})
	}
	if len(p.about) > 0 || strings.Contains(text, "context deadline exceeded") || strings.Contains(text, "timed out waiting for the condition") {
		p.cause = CauseHealth
	}
	return p
}

// parseValues reads the message of a reason ValuesError.
func parseValues(message string) problem {
	m := valuesShape.FindStringSubmatch(clip(message))
	if m == nil {
		return problem{cause: CauseUnknown}
	}
	p := problem{about: []mention{{groupKnown: true, kind: m[1], namespace: m[2], name: m[3]}}}
	switch {
	case strings.Contains(m[5], "key not found"), strings.Contains(m[5], "missing key"):
		p.cause = CauseKeyMissing
	case strings.Contains(m[5], "not found"):
		p.cause = CauseNotFound
	default:
		p.cause, p.about = CauseUnknown, nil
	}
	return p
}

// parseError reads an error of the API server.
func parseError(text string) problem {
	text = clip(text)
	// The message of a webhook may contain anything: it is not read.
	if deniedShape.MatchString(text) || policyShape.MatchString(text) {
		return problem{cause: CauseDenied}
	}
	if m := webhookShape.FindStringSubmatch(text); m != nil {
		p := problem{cause: CauseWebhook, webhook: m[1]}
		if s := serviceShape.FindStringSubmatch(text); s != nil {
			p.service = to(serviceKind, s[2], s[1])
		}
		return p
	}
	if m := kindShape.FindStringSubmatch(text); m != nil {
		return problem{cause: CauseKindMissing, kind: m[1], versions: []string{m[2]}}
	}
	if m := terminatingShape.FindStringSubmatch(text); m != nil {
		return problem{cause: CauseTerminating, about: []mention{{groupKnown: true, kind: "Namespace", name: m[1]}}}
	}
	if strings.Contains(text, "create not allowed while custom resource definition is terminating") {
		return problem{cause: CauseTerminating}
	}
	if versions := parseDiscovery(text); len(versions) > 0 {
		return problem{cause: CauseAPIService, versions: versions}
	}
	switch {
	case strings.Contains(text, "values don't meet the specifications of the schema"):
		return problem{cause: CauseValues}
	case strings.Contains(text, "exceeded quota"):
		return problem{cause: CauseQuota}
	case rbacShape.MatchString(text):
		return problem{cause: CauseForbidden}
	case strings.Contains(text, "field is immutable"), strings.Contains(text, "updates to statefulset spec for fields other than"):
		return problem{cause: CauseImmutable}
	case strings.Contains(text, "field not declared in schema"), strings.Contains(text, "strict decoding error"),
		strings.Contains(text, " is invalid: "), strings.Contains(text, "failed to create typed patch object"):
		return problem{cause: CauseSchema}
	case conflictShape.MatchString(text):
		return problem{cause: CauseConflict}
	}
	if about := parseNotFound(text); len(about) > 0 {
		return problem{cause: CauseNotFound, about: about}
	}
	if isTransient(text) {
		return problem{cause: CauseTransient}
	}
	return problem{cause: CauseUnknown}
}

// parseDiscovery returns the API versions whose discovery failed.
func parseDiscovery(text string) []string {
	if m := discoveryShape.FindStringSubmatch(text); m != nil {
		var out []string
		for _, group := range groupShape.FindAllStringSubmatch(m[1], -1) {
			out = append(out, group[1])
		}
		return out
	}
	if m := staleShape.FindStringSubmatch(text); m != nil {
		return []string{m[1]}
	}
	return nil
}

// parseNotFound returns the objects in RESOURCE "NAME" not found. Resources that are not known are left out.
func parseNotFound(text string) []mention {
	var out []mention
	for _, m := range notFoundShape.FindAllStringSubmatch(text, -1) {
		gk, ok := resources[strings.ToLower(m[1])]
		if !ok {
			// Some controllers write the kind in place of the resource.
			kind, group, dotted := strings.Cut(m[1], ".")
			if !dotted || kind[0] < 'A' || kind[0] > 'Z' {
				continue
			}
			gk = schema.GroupKind{Group: group, Kind: kind}
		}
		about := mention{group: gk.Group, groupKnown: true, kind: gk.Kind, name: m[2], anyNamespace: true}
		if namespace, name, ok := strings.Cut(m[2], "/"); ok {
			about.namespace, about.name, about.anyNamespace = namespace, name, false
		}
		out = append(out, about)
	}
	return out
}

// isTransient reports whether an error is about a connection, which may work at the next attempt.
func isTransient(text string) bool {
	for _, part := range []string{
		"context deadline exceeded", "i/o timeout", "connection refused", "connection reset by peer", "unexpected EOF", "TLS handshake timeout",
		"etcdserver: ", "no such host", "too many requests", "the object has been modified", "server is currently unable to handle the request",
		"Client.Timeout exceeded", "no route to host", "server misbehaving", "leader changed",
	} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}
