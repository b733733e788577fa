package delivery

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/internal/finalizers"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// expand adds what a node waits for. A node that waits for nothing is a root.
func (g *graph) expand(n *node) {
	n.expanded = true
	switch gk := n.ref.GroupKind(); {
	case n.state == Ready, n.refused:
	case n.state == Missing:
		g.expandMissing(n)
	case n.object == nil:
	case n.state == Terminating:
		g.expandTerminating(n)
	case n.state == Suspended:
	case (n.cause == CauseNotReconciled || n.cause == CauseRevisionLags) && isFlux(gk):
		g.expandNotReconciled(n)
	case gk == flux.Kustomization:
		g.expandKustomization(n)
	case gk == flux.HelmRelease:
		g.expandRelease(n)
	case isFlux(gk):
		g.expandSource(n)
	default:
		g.expandOther(n)
	}
}

// reference returns the object that a map with kind, name and namespace names.
func reference(m map[string]any, group, namespace string) Ref {
	return Ref{Group: group, Kind: stringAt(m, "kind"), Namespace: cmp.Or(stringAt(m, "namespace"), namespace), Name: stringAt(m, "name")}
}

// sourceOf returns the node of the source of a Kustomization.
func (g *graph) sourceOf(n *node, missing string) *node {
	return g.get(reference(mapAt(n.object.Object, "spec", "sourceRef"), flux.GitRepository.Group, n.ref.Namespace), missing)
}

// expandKustomization adds what a Kustomization waits for that is not ready.
func (g *graph) expandKustomization(n *node) {
	if n.state == InProgress {
		g.expandProgressing(n)
		return
	}
	reason, message := n.cond.Reason, n.message
	switch reason {
	case "DependencyNotReady":
		g.expandDependencies(n, parseDependency(message))
	case "ArtifactFailed":
		g.expandArtifact(n, message)
	case "BuildFailed":
		g.expandBuild(n, message)
	case "ReconciliationFailed", "PruneFailed":
		p := parseApply(message)
		if healthShape.MatchString(message) {
			g.expandHealth(n, parseHealth(message))
			return
		}
		g.expandProblem(n, p)
	case "HealthCheckFailed":
		g.expandHealth(n, parseHealth(message))
	case "HealthCheckCanceled":
		n.state, n.cause = InProgress, CauseProgressing
	case "AccessDenied":
		n.cause = CauseAccess
	case "InvalidCELExpression", "FeatureGateDisabled", "InvalidPath":
		n.cause = CauseConfiguration
	case "Progressing", "ProgressingWithRetry":
		n.state, n.cause = InProgress, CauseProgressing
	default:
		n.state, n.cause = Unknown, CauseUnknown
	}
}

// expandProgressing adds the objects that a running health check waits for.
func (g *graph) expandProgressing(n *node) {
	if n.cond == nil {
		return
	}
	// While it tries again, the message of the last attempt is not in the status.
	if history := listAt(n.object.Object, "status", "history"); len(history) > 0 {
		last, _ := history[0].(map[string]any)
		if result := stringAt(last, "lastReconciledStatus"); strings.HasSuffix(result, "Failed") {
			n.notes = append(n.notes, fmt.Sprintf("its last attempt ended with %s; look again when this one has ended", result))
		}
	}
	m := timeoutShape.FindStringSubmatch(n.message)
	if m == nil {
		return
	}
	if timeout, err := time.ParseDuration(m[1]); err == nil && g.passed(n.cond.Since, 2*timeout) {
		n.state, n.evidence = Hung, n.evidence+", longer than twice its timeout of "+m[1]
	}
	evidence := n.evidence
	checks := healthChecks(n)
	if boolAt(n.object.Object, "spec", "wait") {
		checks = nil
		for ref := range inventory(n.object) {
			checks = append(checks, ref)
		}
	}
	for _, ref := range checks {
		if ref == n.ref {
			continue
		}
		if c := g.existing(ref); c != nil && g.get(ref, "").state != Ready {
			g.wait(n, c, HealthCheck, evidence)
		}
	}
}

// passed reports whether a time is longer ago than a duration. It is false if either time is not known.
func (g *graph) passed(since time.Time, d time.Duration) bool {
	return !g.in.Now.IsZero() && !since.IsZero() && g.in.Now.Sub(since) > d
}

// expandDependencies adds the entries of spec.dependsOn that are not ready. The message names the first one only.
func (g *graph) expandDependencies(n *node, p problem) {
	gk := n.ref.GroupKind()
	other := flux.HelmRelease
	if gk == flux.HelmRelease {
		other = flux.Kustomization
	}
	var artifact string
	var source Ref
	if gk == flux.Kustomization {
		s := g.sourceOf(n, "")
		source, artifact = s.ref, revisionOf(s)
	}
	named := func(ref Ref) bool {
		return len(p.about) > 0 && p.about[0].namespace == ref.Namespace && p.about[0].name == ref.Name
	}
	anyNamed := false
	for i, item := range listAt(n.object.Object, "spec", "dependsOn") {
		m, _ := item.(map[string]any)
		ref := to(gk, cmp.Or(stringAt(m, "namespace"), n.ref.Namespace), stringAt(m, "name"))
		field := fmt.Sprintf("spec.dependsOn[%d]", i)
		if named(ref) {
			anyNamed = true
			field += " and " + n.cond.Evidence()
		}
		d := g.existing(ref)
		if d == nil {
			missing := ""
			if named(ref) && p.cause == CauseNotFound {
				missing = n.cond.Evidence() + " of " + n.ref.String()
			}
			if o := g.existing(to(other, ref.Namespace, ref.Name)); o != nil && (missing != "" || g.doesNotExist(ref)) {
				n.cause = CauseDependencyKind
				n.notes = append(n.notes, fmt.Sprintf("%s names %s/%s, which is a %s: dependsOn works within one kind", field, ref.Namespace, ref.Name, other.Kind))
				n.own = true
				continue
			}
			if missing != "" || named(ref) || g.doesNotExist(ref) {
				g.wait(n, g.get(ref, missing), DependsOn, field)
			}
			continue
		}
		d = g.get(ref, "")
		expression := stringAt(m, "readyExpr")
		switch {
		case d.state != Ready:
			if expression == "" || named(ref) {
				g.wait(n, d, DependsOn, field)
			}
		case expression != "" && named(ref) && p.cause == CauseReadyExpr:
			n.own, n.state, n.cause = true, Unknown, CauseReadyExpr
			n.notes = append(n.notes, fmt.Sprintf("%s is ready, but the readyExpr of %s is not true", ref, field))
		case gk == flux.Kustomization && artifact != "" && stringAt(d.object.Object, "status", "lastAppliedRevision") != artifact &&
			g.sourceOf(d, "").ref == source && (expression == "" || named(ref)):
			g.lags(d, artifact)
			g.wait(n, d, DependsOn, field)
		}
	}
	switch {
	case n.own, len(n.edges) > 0:
		if n.own && n.cause == CauseDependencyKind {
			return
		}
		if !n.own {
			n.cause = CauseDependency
		}
	case p.cause == CauseUnknown, !anyNamed:
		// The message is not about spec.dependsOn as it is now, or is not understood.
		n.state, n.cause = Unknown, CauseUnknown
		if p.cause != CauseUnknown {
			n.state, n.cause = InProgress, CauseRetry
		}
	default:
		n.state, n.cause = InProgress, CauseRetry
	}
}

// revisionOf returns the revision of the artifact of a source; empty if it is not known.
func revisionOf(source *node) string {
	if source.object == nil {
		return ""
	}
	return stringAt(source.object.Object, "status", "artifact", "revision")
}

// lags sets the state of a Kustomization that is ready at another revision than that of its source, which others wait
// for.
func (g *graph) lags(d *node, revision string) {
	if d.state != Ready {
		return
	}
	d.cause, d.evidence = CauseRevisionLags, fmt.Sprintf("status.lastAppliedRevision is not %s", revision)
	d.message = fmt.Sprintf("it has applied %s, the artifact of its source is %s",
		cmp.Or(stringAt(d.object.Object, "status", "lastAppliedRevision"), "nothing"), revision)
	if boolAt(d.object.Object, "spec", "suspend") {
		d.state, d.cause, d.evidence = Suspended, CauseSuspended, "spec.suspend"
		return
	}
	d.state = InProgress
	source := g.sourceOf(d, "")
	interval := durationAt(d.object.Object, 10*time.Minute, "spec", "interval")
	timeout := durationAt(d.object.Object, interval, "spec", "timeout")
	if source.object != nil && g.passed(timeAt(source.object.Object, "status", "artifact", "lastUpdateTime"), interval+timeout) {
		d.state = Hung
		d.evidence += fmt.Sprintf(", which is older than the interval and the timeout of the Kustomization (%s)", interval+timeout)
	}
}

// expandNotReconciled adds what keeps a controller from an object of Flux.
func (g *graph) expandNotReconciled(n *node) {
	if g.expandController(n) || n.ref.GroupKind() != flux.Kustomization {
		return
	}
	g.expandBusy(n)
}

// fluxNamespace is where the controllers of Flux usually are. Elsewhere they are found only if all Deployments were read.
const fluxNamespace = "flux-system"

// expandController adds the controller of an object of Flux if it is not ready, and reports whether there is one.
func (g *graph) expandController(n *node) bool {
	names := finalizers.FluxControllers(n.ref.Group)
	for _, name := range names {
		g.existing(to(deploymentKind, fluxNamespace, name)) // so that it is among the instances
	}
	for _, c := range g.instances[deploymentKind] {
		for _, name := range names {
			if c.ref.Name == name && g.get(c.ref, "").state != Ready {
				g.wait(n, c, RunBy, "no reconciliation of the newest generation")
				return true
			}
		}
	}
	return false
}

// defaultConcurrency is the default of --concurrent of kustomize-controller.
const defaultConcurrency = 4

// expandBusy adds the Kustomizations whose health checks occupy all workers of kustomize-controller.
func (g *graph) expandBusy(n *node) {
	workers := 0
	for _, c := range g.instances[deploymentKind] {
		if c.ref.Name == "kustomize-controller" {
			workers = concurrency(c)
		}
	}
	if workers == 0 {
		return
	}
	var busy []*node
	for _, k := range g.instances[flux.Kustomization] {
		if k == n {
			continue
		}
		if r := condition.Find(condition.Of(k.object), "Reconciling"); r.Is("True") && timeoutShape.MatchString(r.Message) {
			busy = append(busy, k)
		}
	}
	if len(busy) < workers {
		return
	}
	for _, k := range busy {
		k = g.get(k.ref, "")
		if k.state == Ready {
			continue
		}
		g.wait(n, k, RunBy, fmt.Sprintf("health checks occupy all %d workers of kustomize-controller", workers))
	}
}

// concurrency returns the number of workers of kustomize-controller.
func concurrency(c *node) int {
	for _, item := range listAt(c.object.Object, "spec", "template", "spec", "containers") {
		m, _ := item.(map[string]any)
		for _, arg := range listAt(m, "args") {
			text, _ := arg.(string)
			var workers int
			if _, err := fmt.Sscanf(strings.TrimLeft(text, "-"), "concurrent=%d", &workers); err == nil {
				return workers
			}
		}
	}
	return defaultConcurrency
}

// expandArtifact adds the source of a Kustomization whose artifact could not be read.
func (g *graph) expandArtifact(n *node, message string) {
	if strings.HasPrefix(message, "kustomization path not found") {
		n.cause = CausePathMissing
		return
	}
	missing := ""
	if sourceShape.MatchString(message) && strings.Contains(message, "not found") {
		missing = n.evidence + " of " + n.ref.String()
	}
	g.waitForSource(n, g.sourceOf(n, missing), "spec.sourceRef")
}

// waitForSource adds a source that is not ready or has no artifact.
func (g *graph) waitForSource(n, source *node, field string) {
	switch {
	case source.state != Ready:
		n.cause = CauseSource
		g.wait(n, source, FromSource, field)
	case revisionOf(source) == "" && !withoutStatus(source.ref.GroupKind(), source.object):
		source.state, source.cause, source.evidence = InProgress, CauseArtifact, "no status.artifact"
		n.cause = CauseSource
		g.wait(n, source, FromSource, field)
	default:
		n.state, n.cause = InProgress, CauseArtifact
		g.hungRetry(n)
	}
}

// hungRetry has a node that fails again and again with a transient error fail, if it does so for longer than two of its
// intervals.
func (g *graph) hungRetry(n *node) {
	interval := durationAt(n.object.Object, 10*time.Minute, "spec", "interval")
	if n.cond != nil && g.passed(n.cond.Since, 2*max(interval, 5*time.Minute)) {
		n.state = Hung
	}
}

// expandBuild adds the Secrets and ConfigMaps that a build needs.
func (g *graph) expandBuild(n *node, message string) {
	n.cause = CauseBuild
	named := ""
	if m := substituteShape.FindStringSubmatch(message); m != nil && strings.Contains(message, "not found") {
		named = m[1] + "/" + m[2]
	}
	for i, item := range listAt(n.object.Object, "spec", "postBuild", "substituteFrom") {
		m, _ := item.(map[string]any)
		kind, name := stringAt(m, "kind"), stringAt(m, "name")
		if boolAt(m, "optional") || !strings.HasPrefix(message, "post build failed") {
			continue
		}
		missing := ""
		if named == kind+"/"+name {
			missing = n.evidence + " of " + n.ref.String()
		}
		if ref := (Ref{Kind: kind, Namespace: n.ref.Namespace, Name: name}); g.existing(ref) == nil && (missing != "" || g.doesNotExist(ref)) {
			g.wait(n, g.get(ref, missing), Substitutes, fmt.Sprintf("spec.postBuild.substituteFrom[%d]", i))
		}
	}
	if len(n.edges) > 0 || !strings.Contains(message, "decrypt") {
		return
	}
	n.cause = CauseDecryption
	key := stringAt(n.object.Object, "spec", "decryption", "secretRef", "name")
	if key == "" {
		return
	}
	missing := ""
	for _, about := range parseNotFound(message) {
		if about.kind == "Secret" && (about.name == key) {
			missing = n.evidence + " of " + n.ref.String()
		}
	}
	if ref := to(secretKind, n.ref.Namespace, key); g.existing(ref) == nil && (missing != "" || g.doesNotExist(ref)) {
		g.wait(n, g.get(ref, missing), Reference, "spec.decryption.secretRef")
	}
}

// expandHealth adds the objects that a failed health check names.
func (g *graph) expandHealth(n *node, p problem) {
	n.cause = CauseHealth
	if p.cause == CauseUnknown {
		n.state, n.cause = Unknown, CauseUnknown
		return
	}
	applied := map[Ref]bool{}
	for ref := range g.inventory(n) {
		applied[ref] = true
	}
	waits := false
	for _, about := range p.about {
		c := g.mentioned(n, about, "")
		if c == nil {
			// The message names an object of a kind that is not known.
			c = g.get(Ref{Kind: about.kind, Namespace: about.namespace, Name: about.name}, "")
		}
		switch {
		case about.status == "NotFound" && c.object == nil:
			if !applied[c.ref] && !g.wasProduced(c) {
				n.own, n.cause = true, CauseHealthCheckMissing
				n.notes = append(n.notes, fmt.Sprintf("the health check names %s, which does not exist", c.ref))
				continue
			}
			c = g.get(c.ref, n.evidence+" of "+n.ref.String())
		case c.object == nil:
			if c.state == Unknown {
				c.evidence = fmt.Sprintf("status %s in %s of %s", about.status, n.evidence, n.ref)
				c.fromHealth(about.status)
			}
		case c.state == Ready && hasExpression(n, c.ref):
			// The Kustomization has its own idea of the health of this kind.
			c.evidence = fmt.Sprintf("status %s in %s of %s, by spec.healthCheckExprs", about.status, n.evidence, n.ref)
			c.fromHealth(about.status)
		case c.state == Ready:
			waits = true
			continue
		case c.state == InProgress:
			c.hung = fmt.Sprintf("%s waited for it until its timeout", n.ref)
		}
		g.wait(n, c, HealthCheck, n.evidence)
	}
	if len(n.edges) == 0 && !n.own {
		n.state, n.cause = Unknown, CauseUnknown
		if waits {
			n.state, n.cause = InProgress, CauseRetry
		}
	}
}

// hasExpression reports whether a Kustomization has an expression for the health of a kind.
func hasExpression(n *node, ref Ref) bool {
	for _, item := range listAt(n.object.Object, "spec", "healthCheckExprs") {
		m, _ := item.(map[string]any)
		group, _, ok := strings.Cut(stringAt(m, "apiVersion"), "/")
		if !ok {
			group = ""
		}
		if stringAt(m, "kind") == ref.Kind && group == ref.Group {
			return true
		}
	}
	return false
}

// wasProduced reports whether something that was read makes the object.
func (g *graph) wasProduced(n *node) bool { return len(g.producers[n.ref]) > 0 }

// fromHealth sets the state of an object that was not read from that of a health check.
func (n *node) fromHealth(status string) {
	switch status {
	case "Failed":
		n.state, n.cause = Failed, CauseNotHealthy
	case "InProgress":
		n.state, n.cause = Hung, CauseNotHealthy
	case "Terminating":
		n.state, n.cause = Terminating, CauseTerminating
	}
}

// chartKinds are the kinds of HelmRelease.status.helmChart and spec.chartRef.
var chartKinds = map[string]schema.GroupKind{
	"": flux.HelmChart, "HelmChart": flux.HelmChart, "OCIRepository": flux.OCIRepository, "ExternalArtifact": flux.ExternalArtifact,
}

// chartOf returns the node of the source of a release's chart; nil if it cannot be determined.
func (g *graph) chartOf(n *node, missing string) (chart *node, field string) {
	o := n.object.Object
	if m := mapAt(o, "spec", "chartRef"); m != nil {
		return g.get(reference(m, flux.HelmChart.Group, n.ref.Namespace), missing), "spec.chartRef"
	}
	if at := strings.Split(stringAt(o, "status", "helmChart"), "/"); len(at) == 2 || len(at) == 3 {
		kind := ""
		if len(at) == 3 {
			kind, at = at[0], at[1:]
		}
		if gk, ok := chartKinds[kind]; ok {
			return g.get(to(gk, at[0], at[1]), missing), "status.helmChart"
		}
	}
	spec := mapAt(o, "spec", "chart", "spec")
	if spec == nil {
		return nil, ""
	}
	name := n.ref.Namespace + "-" + n.ref.Name
	if stringAt(o, "spec", "chart", "kind") == "OCIRepository" {
		return g.get(to(flux.OCIRepository, n.ref.Namespace, name), missing), "spec.chart"
	}
	return g.get(to(flux.HelmChart, cmp.Or(stringAt(spec, "sourceRef", "namespace"), n.ref.Namespace), name), missing), "spec.chart"
}

// expandRelease adds what a HelmRelease waits for that is not ready. Its Ready can be stale, so that a release that failed
// comes first where what Ready reports no longer holds.
func (g *graph) expandRelease(n *node) {
	list := condition.Of(n.object)
	is := condition.Find(list, "Ready")
	if n.state == InProgress || n.cond == nil {
		g.expandReleaseObjects(n, false)
		return
	}
	before := n.finding
	if is.Is("False") && g.expandPrerequisite(n, is) {
		// Otherwise what Ready reports no longer holds.
		if len(n.edges) > 0 || n.own || n.state != InProgress || failedRelease(list) == nil {
			return
		}
		n.finding = before
	}
	c := failedRelease(list)
	if c == nil {
		if released := condition.Find(list, "Released"); is != nil && released.Is("True") && releaseActions[is.Reason] && released.Since.After(is.Since) {
			n.state, n.cause = InProgress, CauseRetry
			n.notes = append(n.notes, "Ready is stale: Released is True, and changed after it")
			return
		}
		c = n.cond
	}
	n.message, n.evidence, n.cond = c.Message, c.Evidence(), c
	g.expandFailedRelease(n, c, condition.Find(list, "Stalled"))
}

// failedRelease returns the condition of the last Helm action that failed; nil if none did.
func failedRelease(list []*condition.Condition) *condition.Condition {
	for _, kind := range []string{"Released", "TestSuccess", "Remediated"} {
		if c := condition.Find(list, kind); c.Is("False") {
			return c
		}
	}
	return nil
}

// expandPrerequisite adds what a release needs before Helm runs, and reports whether Ready is about that.
func (g *graph) expandPrerequisite(n *node, is *condition.Condition) bool {
	switch is.Reason {
	case "DependencyNotReady":
		g.expandDependencies(n, parseDependency(is.Message))
	case "ArtifactFailed", "SourceNotReady":
		missing := ""
		if sourceShape.MatchString(is.Message) && strings.Contains(is.Message, "not found") {
			missing = n.evidence + " of " + n.ref.String()
		}
		chart, field := g.chartOf(n, missing)
		if chart == nil {
			n.state, n.cause = Unknown, CauseUnknown
			return true
		}
		if chart.state == Missing && chart.ref.GroupKind() == flux.HelmChart && stringAt(n.object.Object, "spec", "chartRef", "name") == "" {
			// helm-controller makes the HelmChart: what is missing is its source, if anything.
			spec := mapAt(n.object.Object, "spec", "chart", "spec")
			source := g.get(reference(mapAt(spec, "sourceRef"), flux.HelmChart.Group, n.ref.Namespace), "")
			if source.state != Ready {
				n.cause = CauseSource
				g.wait(n, source, FromSource, "spec.chart.spec.sourceRef")
				return true
			}
		}
		n.cause = CauseSource
		if chart.cause == CauseNotRead {
			// The release repeats the message of its chart.
			if cause := sourceCause(is.Message); cause != "" {
				chart.state, chart.cause, chart.message, chart.cond = Failed, cause, is.Message, is
				chart.evidence = is.Evidence() + " of " + n.ref.String()
			}
		}
		if chart.state != Ready {
			g.wait(n, chart, FromChart, field)
			return true
		}
		g.waitForSource(n, chart, field)
		if strings.HasPrefix(is.Message, "Could not load chart") && len(n.edges) == 0 && !isTransient(is.Message) && !strings.Contains(is.Message, "artifact") {
			n.state, n.cause = Failed, CauseSource
		}
	case "ValuesError":
		g.expandValues(n, is)
	case "AccessDenied":
		n.cause = CauseAccess
	case "InvalidCELExpression", "RESTClientError", "FactoryError", "ChartMutateError", "ConfigFactoryErr":
		n.cause = CauseConfiguration
		g.expandAbout(n, parseError(is.Message))
	case "StateError", "ReconcileError", "RetryAfterInterval":
		n.cause = CauseUnknown
		g.expandAbout(n, parseError(is.Message))
		if len(n.edges) == 0 && n.cause == CauseUnknown && failedRelease(condition.Of(n.object)) == nil {
			n.state = Unknown
			return true
		}
		return len(n.edges) > 0
	case "Progressing":
		n.state, n.cause = InProgress, CauseProgressing
	default:
		return false
	}
	return true
}

// expandValues adds the Secrets and ConfigMaps of spec.valuesFrom that are missing.
func (g *graph) expandValues(n *node, is *condition.Condition) {
	p := parseValues(is.Message)
	n.cause = CauseValues
	for i, item := range listAt(n.object.Object, "spec", "valuesFrom") {
		m, _ := item.(map[string]any)
		ref := Ref{Kind: stringAt(m, "kind"), Namespace: n.ref.Namespace, Name: stringAt(m, "name")}
		field := fmt.Sprintf("spec.valuesFrom[%d]", i)
		named := len(p.about) > 0 && p.about[0].kind == ref.Kind && p.about[0].name == ref.Name
		if existing := g.existing(ref); existing != nil {
			if named && p.cause == CauseKeyMissing && !g.hasKey(existing, cmp.Or(stringAt(m, "valuesKey"), "values.yaml")) {
				existing = g.get(ref, "")
				existing.state, existing.cause = Failed, CauseKeyMissing
				existing.message, existing.evidence = is.Message, is.Evidence()+" of "+n.ref.String()
				g.wait(n, existing, Reference, field)
			}
			continue
		}
		missing := ""
		if named && p.cause == CauseNotFound {
			missing = is.Evidence() + " of " + n.ref.String()
		}
		switch {
		case missing != "" || g.doesNotExist(ref) && !boolAt(m, "optional"):
			g.wait(n, g.get(ref, missing), Reference, field)
		case named && p.cause == CauseKeyMissing:
			c := g.get(ref, "")
			c.state, c.cause, c.message, c.evidence = Failed, CauseKeyMissing, is.Message, is.Evidence()+" of "+n.ref.String()
			g.wait(n, c, Reference, field)
		}
	}
	if len(n.edges) == 0 && p.cause == CauseNotFound {
		n.state, n.cause = InProgress, CauseRetry
	}
}

// hasKey reports whether a Secret or ConfigMap is known to have a key.
func (g *graph) hasKey(n *node, key string) bool {
	for _, field := range []string{"data", "stringData", "binaryData"} {
		if _, ok := mapAt(n.object.Object, field)[key]; ok {
			return true
		}
	}
	return false
}

// releaseActions are the reasons of Ready that repeat a failed Helm action.
var releaseActions = map[string]bool{"InstallFailed": true, "UpgradeFailed": true, "RollbackFailed": true, "UninstallFailed": true}

// releaseCauses are the causes of the reasons of Released, TestSuccess and Remediated.
var releaseCauses = map[string]Cause{
	"InstallFailed": CauseInstall, "UpgradeFailed": CauseUpgrade, "TestFailed": CauseTest, "UninstallFailed": CauseUninstall,
	"RollbackFailed": CauseRollback, "RollbackSucceeded": CauseUpgrade, "UninstallSucceeded": CauseInstall, "PendingRelease": CauseUpgrade,
	"RetriesExceeded": CauseRetries, "MissingRollbackTarget": CauseRetries, "ArtifactFailed": CauseSource, "Drifted": CauseUpgrade,
}

// expandFailedRelease adds what made a Helm action fail.
func (g *graph) expandFailedRelease(n *node, c, stalled *condition.Condition) {
	n.state = Failed
	n.cause = releaseCauses[c.Reason]
	if n.cause == "" {
		n.state, n.cause = Unknown, CauseUnknown
	}
	if stalled.Is("True") {
		n.notes = append(n.notes, fmt.Sprintf("helm-controller does not try again: %s (%s)", stalled.Reason, stalled.Message))
	}
	p := parseRelease(c.Message)
	if p.cause == CauseHealth {
		for _, about := range p.about {
			if o := g.mentioned(n, about, ""); o != nil && o.object != nil && o.state != Ready {
				o.hung = fmt.Sprintf("Helm waited for it until the timeout of %s", n.ref)
				g.wait(n, o, HealthCheck, n.evidence)
			}
		}
		if len(n.edges) == 0 {
			g.expandReleaseObjects(n, true)
		}
		return
	}
	if c.Reason == "TestFailed" {
		return
	}
	g.expandAbout(n, p)
}

// expandReleaseObjects adds the objects of a release that are not ready.
func (g *graph) expandReleaseObjects(n *node, hung bool) {
	for _, o := range g.releaseObjects(n) {
		if g.get(o.ref, "").state == Ready {
			continue
		}
		if hung && o.state == InProgress {
			o.hung = fmt.Sprintf("Helm waited for it until the timeout of %s", n.ref)
		}
		g.wait(n, o, HealthCheck, "the objects of the release")
	}
}

// releaseObjects returns the objects that were read and that a release has applied.
func (g *graph) releaseObjects(n *node) []*node {
	var out []*node
	applied := g.inventory(n)
	if n.state == InProgress {
		applied = inventory(n.object) // a rollout that goes on is not worth reading each of its objects
	}
	for ref := range applied {
		if o := g.existing(ref); o != nil && o != n {
			out = append(out, o)
		}
	}
	if out != nil {
		return out
	}
	namespace := cmp.Or(stringAt(n.object.Object, "spec", "targetNamespace"), n.ref.Namespace)
	for _, o := range g.inNamespace[namespace] {
		labels := mapAt(o.object.Object, "metadata", "labels")
		if stringAt(labels, flux.HelmRelease.Group+"/name") == n.ref.Name && stringAt(labels, flux.HelmRelease.Group+"/namespace") == n.ref.Namespace &&
			o != n && o.ref.GroupKind() != flux.HelmChart && !ownedPart(o) {
			out = append(out, o)
		}
	}
	return out
}

// expandSource adds what a source or another object of Flux waits for.
func (g *graph) expandSource(n *node) {
	if n.cond == nil {
		return
	}
	o := n.object.Object
	reason, message := n.cond.Reason, n.message
	missing := ""
	if sourceShape.MatchString(message) && strings.Contains(message, "not found") {
		missing = n.evidence + " of " + n.ref.String()
	}
	var refs []Ref
	switch n.ref.GroupKind() {
	case flux.HelmChart, flux.ExternalArtifact:
		m := mapAt(o, "spec", "sourceRef")
		group := flux.HelmChart.Group
		if version := stringAt(m, "apiVersion"); version != "" {
			group, _, _ = strings.Cut(version, "/")
		} else if stringAt(m, "kind") == artifactGeneratorKind.Kind {
			group = artifactGeneratorKind.Group
		}
		if m != nil {
			refs = append(refs, reference(m, group, n.ref.Namespace))
		}
	case artifactGeneratorKind:
		for _, item := range listAt(o, "spec", "sources") {
			m, _ := item.(map[string]any)
			refs = append(refs, reference(m, flux.HelmChart.Group, n.ref.Namespace))
		}
	}
	for _, ref := range refs {
		absent := missing
		if len(refs) > 1 && !strings.Contains(message, `"`+ref.Name+`"`) && !strings.Contains(message, "/"+ref.Name+"'") {
			absent = ""
		}
		source := g.existing(ref)
		if source == nil && absent == "" && !g.doesNotExist(ref) {
			continue
		}
		if source = g.get(ref, absent); source.state != Ready {
			n.cause = CauseSource
			g.wait(n, source, FromSource, "spec.sourceRef")
		}
	}
	if len(n.edges) > 0 || n.state == InProgress {
		return
	}
	n.cause = sourceCauses[reason]
	switch {
	case reason == "SourceUnavailable":
		n.state, n.cause = InProgress, CauseRetry
	case sourceCause(message) != "":
		if n.cause = sourceCause(message); n.cause == CauseAuthentication {
			g.expandAbout(n, parseError(message))
		}
	default:
		g.expandAbout(n, parseError(message))
	}
	if n.cause == "" {
		n.state, n.cause = Unknown, CauseUnknown
	}
}

// sourceCause returns the cause that a message of a source reports; empty for others.
func sourceCause(message string) Cause {
	for _, shape := range []struct {
		part  string
		cause Cause
	}{
		{"could not locate a version", CauseVersion},
		{"no match found for semver", CauseVersion},
		{"no chart version found", CauseVersion},
		{"chart with version matching '", CauseVersion},
		{"no chart name found", CauseVersion},
		{"MANIFEST_UNKNOWN", CauseVersion},
		{"authentication required", CauseAuthentication},
		{"UNAUTHORIZED", CauseAuthentication},
		{"DENIED", CauseAuthentication},
		{"401 Unauthorized", CauseAuthentication},
	} {
		if strings.Contains(message, shape.part) {
			return shape.cause
		}
	}
	return ""
}

// sourceCauses are the causes of the reasons of sources and of other objects of Flux.
var sourceCauses = map[string]Cause{
	"GitOperationFailed": CauseFetch, "AuthenticationFailed": CauseAuthentication, "OCIArtifactPullFailed": CauseFetch,
	"OCIArtifactLayerOperationFailed": CauseFetch, "ReadOperationFailed": CauseFetch, "BucketOperationFailed": CauseFetch,
	"Failed": CauseFetch, "IndexationFailed": CauseFetch, "FetchFailed": CauseFetch, "URLInvalid": CauseConfiguration, "ChartPullError": CauseFetch,
	"ChartPackageError": CauseBuild, "ValuesFilesError": CauseValues, "ChartVerificationError": CauseVerification, "VerificationError": CauseVerification,
	"StorageOperationFailed": CauseTransient, "DirectoryCreationFailed": CauseTransient, "InvalidChartReference": CauseConfiguration,
	"IncludeUnavailable": CauseSource, "BuildFailed": CauseBuild, "ValidationFailed": CauseConfiguration, "AccessDenied": CauseAccess,
	"InvalidSTSConfiguration": CauseConfiguration, "InvalidProviderConfiguration": CauseConfiguration, "SourceUnavailable": CauseSource,
	"SourceFetchFailed": CauseSource, "HealthCheckFailed": CauseHealth, "ReconciliationFailed": CauseApply, "DependencyNotReady": CauseDependency,
	"ArtifactFailed": CauseSource,
}
