package delivery

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/internal/condition"
	"github.com/flux-admission/flux-admission/internal/finalizers"
)

// expandProblem adds what made an apply fail: what the error is about, otherwise the object that was not applied.
func (g *graph) expandProblem(n *node, p problem) {
	g.expandAbout(n, p)
	if len(n.edges) > 0 || p.object == nil {
		if p.cause == CauseUnknown {
			n.state = Unknown
		}
		return
	}
	if n.state == InProgress || n.state == Unknown {
		return
	}
	object := g.mentioned(n, *p.object, "")
	if object == nil {
		object = g.get(Ref{Kind: p.object.kind, Namespace: p.object.namespace, Name: p.object.name}, "")
	}
	if object == n {
		return
	}
	// The object may be ready as it was applied before: what is refused is the new one.
	if object.state != Terminating {
		object.state, object.cause, object.message, object.cond = Failed, p.cause, n.message, n.cond
		object.evidence = n.evidence + " of " + n.ref.String()
		object.refused, object.edges = true, nil
	}
	g.wait(n, object, Applies, n.evidence)
}

// expandAbout adds the objects that an error is about, and sets the cause of the node.
func (g *graph) expandAbout(n *node, p problem) {
	evidence := n.evidence
	missing := evidence + " of " + n.ref.String()
	if p.cause != CauseUnknown {
		n.cause = p.cause
	}
	switch p.cause {
	case CauseNotFound:
		for _, about := range p.about {
			kind := Reference
			if about.kind == namespaceKind.Kind {
				kind = InNamespace
			}
			if p.object != nil && about.anyNamespace {
				about.namespace = p.object.namespace
				if !slices.Contains(clusterScoped, schema.GroupKind{Group: about.group, Kind: about.kind}) {
					about.anyNamespace = false
				}
			}
			if o := g.mentioned(n, about, missing); o.state == Ready {
				n.state, n.cause = InProgress, CauseRetry
			} else if o != n {
				g.wait(n, o, kind, evidence)
			}
		}
		if len(n.edges) > 0 {
			n.state = Failed
		}
	case CauseTerminating:
		for _, about := range p.about {
			if o := g.existing(Ref{Kind: about.kind, Name: about.name}); o != nil && g.get(o.ref, "").state == Ready {
				n.state, n.cause = InProgress, CauseRetry
				continue
			}
			o := g.get(Ref{Kind: about.kind, Name: about.name}, "")
			if o.object == nil {
				o.state, o.cause, o.evidence = Terminating, CauseTerminating, missing
			}
			g.wait(n, o, InNamespace, evidence)
		}
		if len(p.about) == 0 && p.object != nil {
			g.expandDefinition(n, p.object.kind, evidence)
		}
	case CauseKindMissing:
		g.expandKind(n, p, evidence, missing)
	case CauseWebhook:
		g.expandWebhook(n, p, evidence, missing)
	case CauseAPIService:
		g.expandVersions(n, p.versions, evidence)
	case CauseTransient:
		n.state = InProgress
		g.hungRetry(n)
	default:
	}
}

// expandDefinition adds the CRD of a kind, by its name alone, that is being deleted.
func (g *graph) expandDefinition(n *node, kind, evidence string) {
	var found []*node
	for gk, crd := range g.definitions {
		if gk.Kind == kind && crd.object.GetDeletionTimestamp() != nil {
			found = append(found, crd)
		}
	}
	if len(found) == 1 {
		g.wait(n, g.get(found[0].ref, ""), OfKind, evidence)
	} else {
		n.state, n.cause = Unknown, CauseUnknown
	}
}

// expandKind adds the CRD of a kind that the API server does not serve.
func (g *graph) expandKind(n *node, p problem, evidence, missing string) {
	group, version, ok := strings.Cut(p.versions[0], "/")
	if !ok {
		group, version = "", group
	}
	gk := schema.GroupKind{Group: group, Kind: p.kind}
	if service := g.existing(to(apiServiceKind, "", version+"."+group)); service != nil && g.get(service.ref, "").state != Ready {
		g.wait(n, service, OfKind, evidence)
		return
	}
	crd := g.definition(gk)
	if crd == nil {
		if !strings.Contains(group, ".") {
			return // a built-in kind has no CRD: the version does not exist
		}
		g.wait(n, g.missingDefinition(gk, missing), OfKind, evidence)
		return
	}
	crd = g.get(crd.ref, "")
	served := slices.ContainsFunc(listAt(crd.object.Object, "spec", "versions"), func(item any) bool {
		m, _ := item.(map[string]any)
		return stringAt(m, "name") == version && boolAt(m, "served")
	})
	switch {
	case crd.state != Ready:
		g.wait(n, crd, OfKind, evidence)
	case served:
		n.state, n.cause = InProgress, CauseRetry
	default:
		n.cause = CauseVersionNotServed
		n.notes = append(n.notes, fmt.Sprintf("%s does not serve version %s", crd.ref, version))
	}
}

// expandWebhook adds the configuration of a webhook that could not be called; when that was not read, the Service of its
// server.
func (g *graph) expandWebhook(n *node, p problem, evidence, missing string) {
	found := g.webhooks[p.webhook]
	if len(found) == 0 {
		if p.service.Name == "" {
			return
		}
		service := g.get(p.service, "")
		g.unavailable(service, CauseWebhook, n, missing)
		g.wait(n, service, ServedBy, evidence)
		return
	}
	for _, w := range found {
		w = g.get(w.ref, "")
		g.unavailable(w, CauseWebhook, n, missing)
		g.wait(n, w, Calls, evidence)
	}
}

// unavailable marks a webhook configuration, the server of a webhook or an API service that others report as unavailable.
func (g *graph) unavailable(n *node, cause Cause, by *node, evidence string) {
	if n.state == Ready || n.state == InProgress || n.object == nil && n.cause != cause {
		n.state, n.cause, n.message, n.evidence, n.cond = Failed, cause, by.message, evidence, by.cond
	}
}

// expandVersions adds the API services of versions whose discovery failed.
func (g *graph) expandVersions(n *node, versions []string, evidence string) {
	retry := false
	for _, v := range versions {
		group, version, _ := strings.Cut(v, "/")
		service := g.get(to(apiServiceKind, "", version+"."+group), "")
		if service.state == Ready {
			retry = true
			continue
		}
		if service.object == nil {
			service.state, service.cause, service.message, service.evidence = Failed, CauseAPIService, n.message, evidence+" of "+n.ref.String()
		}
		g.wait(n, service, ServedBy, evidence)
	}
	if len(n.edges) == 0 && retry {
		n.state, n.cause = InProgress, CauseRetry
	}
}

// expandService adds the workload behind the Service of a webhook or an API service, if it is not ready.
func (g *graph) expandService(n *node, service Ref, field string) {
	s := g.existing(service)
	if s == nil {
		if g.doesNotExist(service) {
			n.notes = append(n.notes, fmt.Sprintf("%s does not exist", service))
		}
		return
	}
	selector := mapAt(s.object.Object, "spec", "selector")
	if len(selector) == 0 {
		return
	}
	found := false
	for _, o := range g.inNamespace[service.Namespace] {
		gk := o.ref.GroupKind()
		if gk != deploymentKind && gk != statefulKind && gk != daemonKind {
			continue
		}
		labels := mapAt(o.object.Object, "spec", "template", "metadata", "labels")
		if !matches(selector, labels) {
			continue
		}
		found = true
		if g.get(o.ref, "").state != Ready {
			g.wait(n, o, ServedBy, field)
		} else if n := intAt(o.object.Object, "spec", "replicas"); gk == deploymentKind && at(o.object.Object, "spec", "replicas") != nil && n == 0 {
			o.state, o.cause, o.message, o.evidence = Failed, CauseNotHealthy, "it is scaled to zero", "spec.replicas"
		}
		if o.state == Failed && o.evidence == "spec.replicas" {
			g.wait(n, o, ServedBy, field)
		}
	}
	if !found && g.complete(deploymentKind) && g.complete(statefulKind) && g.complete(daemonKind) {
		n.notes = append(n.notes, fmt.Sprintf("no workload is behind %s", service))
	}
}

func matches(selector, labels map[string]any) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// expandOther adds what an object that is not one of Flux waits for.
func (g *graph) expandOther(n *node) {
	gk := n.ref.GroupKind()
	if n.refused {
		return
	}
	switch gk {
	case apiServiceKind:
		if name := stringAt(n.object.Object, "spec", "service", "name"); name != "" {
			g.expandService(n, to(serviceKind, stringAt(n.object.Object, "spec", "service", "namespace"), name), "spec.service")
		}
		return
	case validatingKind, mutatingKind:
		for i, item := range listAt(n.object.Object, "webhooks") {
			m, _ := item.(map[string]any)
			if name := stringAt(m, "clientConfig", "service", "name"); name != "" {
				ref := to(serviceKind, stringAt(m, "clientConfig", "service", "namespace"), name)
				g.expandService(n, ref, fmt.Sprintf("webhooks[%d].clientConfig.service", i))
			}
		}
		return
	case secretKind, configMapKind:
		g.expandProducers(n)
		return
	case externalSecretKind:
		g.expandStore(n)
	case secretStoreKind, clusterSecretStoreKind:
		g.expandSecretRefs(n, at(n.object.Object, "spec", "provider"), "spec.provider")
	case certificateKind, requestKind:
		g.expandIssuer(n)
	}
	if isWorkload(gk) {
		g.expandWorkload(n)
	}
	for _, o := range g.owned[n.ref] {
		if !ownedPart(o) && g.get(o.ref, "").state != Ready {
			g.wait(n, o, Owns, "metadata.ownerReferences of "+o.ref.String())
		}
	}
	if len(n.edges) > 0 || isWorkload(gk) {
		return
	}
	text := n.message
	for _, about := range parseNotFound(text) {
		if produces(g.producers[Ref{Group: about.group, Kind: about.kind, Namespace: n.ref.Namespace, Name: about.name}], n) {
			continue
		}
		if o := g.mentioned(n, about, n.evidence+" of "+n.ref.String()); o.state != Ready && o != n {
			g.wait(n, o, Reference, n.evidence)
		}
	}
}

func produces(producers []*node, n *node) bool { return slices.Contains(producers, n) }

// waitIfNotReady adds an object that a field names if it is known to not be ready.
func (g *graph) waitIfNotReady(n *node, ref Ref, kind EdgeType, field string) {
	if g.existing(ref) == nil && !g.doesNotExist(ref) {
		return
	}
	if o := g.get(ref, ""); o.state != Ready {
		g.wait(n, o, kind, field)
	}
}

// expandStore adds the stores of an ExternalSecret.
func (g *graph) expandStore(n *node) {
	refs := map[string]any{"spec.secretStoreRef": at(n.object.Object, "spec", "secretStoreRef")}
	for _, field := range []string{"data", "dataFrom"} {
		for i, item := range listAt(n.object.Object, "spec", field) {
			m, _ := item.(map[string]any)
			refs[fmt.Sprintf("spec.%s[%d].sourceRef.storeRef", field, i)] = at(m, "sourceRef", "storeRef")
		}
	}
	for _, field := range sortedKeys(refs) {
		m, _ := refs[field].(map[string]any)
		name := stringAt(m, "name")
		if name == "" {
			continue
		}
		ref := to(secretStoreKind, n.ref.Namespace, name)
		if stringAt(m, "kind") == clusterSecretStoreKind.Kind {
			ref = to(clusterSecretStoreKind, "", name)
		}
		if g.existing(ref) == nil && strings.Contains(n.message, fmt.Sprintf(`%s "%s" is not ready`, ref.Kind, name)) {
			store := g.get(ref, "")
			if store.state == Unknown {
				store.state, store.cause, store.message, store.evidence = Failed, CauseNotHealthy, n.message, n.evidence+" of "+n.ref.String()
			}
			g.wait(n, store, Reference, field)
			continue
		}
		g.waitIfNotReady(n, ref, Reference, field)
	}
}

// expandSecretRefs adds the Secrets that the provider of a store refers to and that do not exist.
func (g *graph) expandSecretRefs(n *node, v any, field string) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range sortedKeys(v) {
			inner := field + "." + key
			m, _ := v[key].(map[string]any)
			if lower := strings.ToLower(key); m != nil && strings.HasSuffix(lower, "secretref") || m != nil && stringAt(m, "key") != "" && stringAt(m, "name") != "" {
				if name := stringAt(m, "name"); name != "" {
					ref := to(secretKind, cmp.Or(stringAt(m, "namespace"), n.ref.Namespace), name)
					if ref.Namespace != "" && g.existing(ref) == nil && (g.doesNotExist(ref) || strings.Contains(n.message, `"`+name+`" not found`)) {
						missing := ""
						if strings.Contains(n.message, `"`+name+`" not found`) {
							missing = n.evidence + " of " + n.ref.String()
						}
						g.wait(n, g.get(ref, missing), Reference, inner)
					}
					continue
				}
			}
			g.expandSecretRefs(n, v[key], inner)
		}
	case []any:
		for i, item := range v {
			g.expandSecretRefs(n, item, fmt.Sprintf("%s[%d]", field, i))
		}
	}
}

// expandIssuer adds the issuer of a Certificate.
func (g *graph) expandIssuer(n *node) {
	m := mapAt(n.object.Object, "spec", "issuerRef")
	if group := stringAt(m, "group"); group != "" && group != issuerKind.Group {
		return
	}
	ref := to(issuerKind, n.ref.Namespace, stringAt(m, "name"))
	if stringAt(m, "kind") == clusterIssuerKind.Kind {
		ref = to(clusterIssuerKind, "", ref.Name)
	}
	if ref.Name != "" {
		g.waitIfNotReady(n, ref, Reference, "spec.issuerRef")
	}
}

// ownedPart reports whether an object is only a part of its owner: a Pod, a ReplicaSet, or a run of a CronJob.
func ownedPart(n *node) bool {
	gk := n.ref.GroupKind()
	if gk != podKind && gk != replicaKind && gk != jobKind {
		return false
	}
	for _, item := range listAt(n.object.Object, "metadata", "ownerReferences") {
		if m, _ := item.(map[string]any); boolAt(m, "controller") {
			return true
		}
	}
	return false
}

// pods returns the Pods below a workload.
func (g *graph) pods(n *node) []*node {
	var out []*node
	for _, o := range g.owned[n.ref] {
		if o.ref.GroupKind() == podKind {
			out = append(out, o)
		} else if ownedPart(o) {
			out = append(out, g.pods(o)...)
		}
	}
	return out
}

// expandWorkload adds the Secrets, ConfigMaps and claims that the Pods of a workload need and that are missing, and the
// reason that a container does not start.
func (g *graph) expandWorkload(n *node) {
	spec := mapAt(n.object.Object, "spec", "template", "spec")
	field := "spec.template.spec"
	if n.ref.GroupKind() == podKind {
		spec, field = mapAt(n.object.Object, "spec"), "spec"
	}
	for _, r := range podRefs(spec, field, n.ref.Namespace) {
		if r.ref.GroupKind() == claimKind {
			g.waitIfNotReady(n, r.ref, Reference, r.field)
		} else if g.existing(r.ref) == nil && g.doesNotExist(r.ref) {
			g.wait(n, g.get(r.ref, ""), Reference, r.field)
		}
	}
	pods := g.pods(n)
	if n.ref.GroupKind() == podKind {
		pods = append(pods, n)
	}
	for _, p := range pods {
		reason, message := waitingReason(p)
		if reason == "" {
			continue
		}
		text := reason
		if message != "" {
			text += ": " + message
		}
		n.message, n.evidence = text, "status of "+p.ref.String()
		if broken[reason] {
			n.state, n.cause = Failed, CauseNotHealthy
		}
		for _, about := range parseNotFound(message) {
			if o := g.mentioned(n, about, n.evidence); o.state != Ready {
				g.wait(n, o, Reference, n.evidence)
			}
		}
		return
	}
}

// broken are the reasons of a container that does not start by itself.
var broken = map[string]bool{
	"CrashLoopBackOff": true, "ImagePullBackOff": true, "ErrImagePull": true, "InvalidImageName": true, "CreateContainerConfigError": true,
	"CreateContainerError": true, "RunContainerError": true, "ErrImageNeverPull": true, "Unschedulable": true,
}

// waitingReason returns why a container of a Pod waits, or why the Pod is not scheduled.
func waitingReason(p *node) (reason, message string) {
	for _, list := range []string{"initContainerStatuses", "containerStatuses"} {
		for _, item := range listAt(p.object.Object, "status", list) {
			m, _ := item.(map[string]any)
			if reason := stringAt(m, "state", "waiting", "reason"); broken[reason] {
				return reason, stringAt(m, "state", "waiting", "message")
			}
		}
	}
	if c := condition.Find(condition.Of(p.object), "PodScheduled"); c.Is("False") {
		return c.Reason, c.Message
	}
	return "", ""
}

// podRef is an object that a template of Pods needs.
type podRef struct {
	ref   Ref
	field string
}

func podRefs(spec map[string]any, field, namespace string) []podRef {
	var out []podRef
	add := func(gk schema.GroupKind, m map[string]any, key, at string) {
		if name := stringAt(m, key); name != "" && !boolAt(m, "optional") {
			out = append(out, podRef{to(gk, namespace, name), field + "." + at})
		}
	}
	for i, item := range listAt(spec, "volumes") {
		m, _ := item.(map[string]any)
		at := fmt.Sprintf("volumes[%d]", i)
		add(secretKind, mapAt(m, "secret"), "secretName", at+".secret")
		add(configMapKind, mapAt(m, "configMap"), "name", at+".configMap")
		add(claimKind, mapAt(m, "persistentVolumeClaim"), "claimName", at+".persistentVolumeClaim")
	}
	for _, list := range []string{"initContainers", "containers"} {
		for i, item := range listAt(spec, list) {
			m, _ := item.(map[string]any)
			at := fmt.Sprintf("%s[%d]", list, i)
			for j, from := range listAt(m, "envFrom") {
				f, _ := from.(map[string]any)
				add(secretKind, mapAt(f, "secretRef"), "name", fmt.Sprintf("%s.envFrom[%d].secretRef", at, j))
				add(configMapKind, mapAt(f, "configMapRef"), "name", fmt.Sprintf("%s.envFrom[%d].configMapRef", at, j))
			}
			for j, env := range listAt(m, "env") {
				e, _ := env.(map[string]any)
				add(secretKind, mapAt(e, "valueFrom", "secretKeyRef"), "name", fmt.Sprintf("%s.env[%d].valueFrom.secretKeyRef", at, j))
				add(configMapKind, mapAt(e, "valueFrom", "configMapKeyRef"), "name", fmt.Sprintf("%s.env[%d].valueFrom.configMapKeyRef", at, j))
			}
		}
	}
	return out
}

// expandMissing adds what would make an object that does not exist.
func (g *graph) expandMissing(n *node) {
	g.expandProducers(n)
	for _, k := range g.appliedBy[n.ref] {
		k = g.get(k.ref, "")
		applied := k.state == Ready || k.cond != nil && k.cond.Reason == "HealthCheckFailed"
		if k.state == Suspended || boolAt(k.object.Object, "spec", "suspend") {
			k.state, k.cause, k.evidence = Suspended, CauseSuspended, "spec.suspend"
			applied = false
		}
		if !applied {
			g.wait(n, k, AppliedBy, "status.inventory of "+k.ref.String())
		}
	}
}

// expandProducers adds what makes a Secret and is not ready.
func (g *graph) expandProducers(n *node) {
	if g.in.Get != nil && n.ref.GroupKind() == secretKind && len(g.producers[n.ref]) == 0 {
		for _, gk := range []schema.GroupKind{externalSecretKind, sealedSecretKind, certificateKind} {
			g.existing(to(gk, n.ref.Namespace, n.ref.Name)) // the usual name, so that it is among the producers
		}
	}
	for _, p := range g.producers[n.ref] {
		if g.get(p.ref, "").state != Ready {
			g.wait(n, p, ProducedBy, "the name of the Secret in "+p.ref.String())
		}
	}
}

// expandTerminating adds what keeps an object that is deleted.
func (g *graph) expandTerminating(n *node) {
	list := condition.Of(n.object)
	switch n.ref.GroupKind() {
	case crdKind:
		c := condition.Find(list, "Terminating")
		if c != nil {
			n.message, n.evidence, n.cond = c.Message, c.Evidence(), c
		}
		for _, o := range g.instances[definedKind(n.object)] {
			if g.get(o.ref, ""); o.state == Terminating {
				g.wait(n, o, HeldBy, "an instance of the kind with finalizers")
			}
		}
	case namespaceKind:
		for _, c := range list {
			if !c.Is("True") || !strings.HasPrefix(c.Type, "Namespace") {
				continue
			}
			n.message, n.evidence, n.cond = c.Message, c.Evidence(), c
			if versions := parseDiscovery(c.Message); len(versions) > 0 {
				g.expandVersions(n, versions, c.Evidence())
				n.state = Terminating
				break
			}
		}
		if len(n.edges) > 0 {
			break
		}
		for _, o := range g.inNamespace[n.ref.Name] {
			if o.object.GetDeletionTimestamp() != nil && len(o.object.GetFinalizers()) > 0 && !ownedPart(o) {
				g.get(o.ref, "")
				g.wait(n, o, HeldBy, "metadata.finalizers of "+o.ref.String())
			}
		}
	}
	if slices.Contains(n.object.GetFinalizers(), "foregroundDeletion") {
		for _, o := range g.owned[n.ref] {
			if g.get(o.ref, ""); o.state == Terminating && !ownedPart(o) {
				g.wait(n, o, HeldBy, "metadata.ownerReferences of "+o.ref.String())
			}
		}
	}
	g.expandFinalizers(n)
	if isFlux(n.ref.GroupKind()) {
		if is := condition.Find(list, "Ready"); is.Is("False") {
			n.message, n.cond = is.Message, is
			g.expandDeletion(n, is)
		}
	}
}

// expandDeletion adds what a finalizer of Flux waits for.
func (g *graph) expandDeletion(n *node, is *condition.Condition) {
	if p := parseError(is.Message); p.cause == CauseWebhook || p.cause == CauseAPIService {
		before := n.state
		g.expandAbout(n, p)
		n.state = before
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// expandFinalizers adds the controllers of finalizers that are not ready.
func (g *graph) expandFinalizers(n *node) {
	for _, f := range n.object.GetFinalizers() {
		state, detail, workload := g.controller(n, f)
		n.finalizers = append(n.finalizers, Finalizer{Name: f, Controller: state, Detail: detail})
		if workload != nil {
			g.wait(n, workload, RunBy, "the controller of finalizer "+f)
		}
	}
}

// controller returns the state of the controller that removes a finalizer, and its workload if that is not ready.
func (g *graph) controller(n *node, finalizer string) (state ControllerState, detail string, workload *node) {
	owner := finalizers.OwnerOf(n.ref.Group, finalizer)
	switch {
	case owner.Kubernetes:
		return NotKnown, "Kubernetes itself", nil
	case len(owner.Workloads) == 0:
		return NotKnown, "the controller of this finalizer is not known", nil
	}
	var down *node
	for _, gk := range []schema.GroupKind{deploymentKind, statefulKind, daemonKind} {
		for _, o := range g.instances[gk] {
			if !owner.Runs(o.object) {
				continue
			}
			if g.get(o.ref, "").state == Ready && (gk == daemonKind || at(o.object.Object, "spec", "replicas") == nil || intAt(o.object.Object, "spec", "replicas") > 0) {
				return Alive, o.ref.String(), nil
			}
			if down == nil {
				down = o
			}
		}
	}
	if down != nil {
		if down.state == Ready {
			down.state, down.cause, down.message, down.evidence = Failed, CauseNotHealthy, "it is scaled to zero", "spec.replicas"
		}
		return NotKnown, down.ref.String() + " is not ready", down
	}
	if g.complete(deploymentKind) && g.complete(statefulKind) && g.complete(daemonKind) {
		return Gone, "no workload named " + strings.Join(owner.Workloads, " or "), nil
	}
	return NotKnown, "not all workloads were read", nil
}
