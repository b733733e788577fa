package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/audit"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/health"
	"github.com/flux-admission/flux-admission/webhook/metrics"
	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

// newAudit creates the background audit, unless it is off, and what writes its reports.
func (s *Server) newAudit() error {
	o := s.options
	format := audit.Format(o.AuditReports)
	switch {
	case !slices.Contains(audit.Formats(), format):
		return fmt.Errorf("--audit-reports %q: use none, openreports or policyreport", o.AuditReports)
	case !o.Audit && format != audit.NoReports:
		return fmt.Errorf("--audit-reports %s needs --audit", o.AuditReports)
	case !o.Audit && o.AuditEvents:
		return errors.New("--audit-events needs --audit")
	case !o.Audit && o.AuditHealth:
		return errors.New("--audit-health needs --audit")
	case !o.Audit && o.AuditBuildDir != "":
		return errors.New("--audit-build-dir needs --audit")
	case o.AuditInterval <= 0:
		return fmt.Errorf("--audit-interval %s must be positive", o.AuditInterval)
	case !o.Audit:
		return nil
	}
	objects := s.auditObjects()
	leading := s.election.Leading
	rules := s.rules.Rules()
	if !o.AuditHealth {
		rules = slices.DeleteFunc(rules, func(m *validators.Meta) bool { return m.Component == health.Component })
	}
	if s.reporter != nil {
		s.reporter.Audit = func() *v1alpha1.AuditStatus { return s.auditor.Status() }
	}
	s.auditor = &audit.Auditor{
		Policy: s.policies.Get, Leading: leading, Objects: objects, Live: s.manager.GetAPIReader(), Mapper: s.manager.GetRESTMapper(),
		Synced: func() error { return informersSynced(s.namespaces, s.watches)() },
		Rules:  rules, Kinds: audit.Kinds(rules), Excluded: webhookconfig.Excluded(o.Namespace), Interval: o.AuditInterval,
		Log: s.log.WithName("audit"),
	}
	objects.Readable = readable(rules, s.informedKinds())
	s.auditor.Evaluated = metrics.NewAudit(s.registry, s.auditor.Results().Summary, s.auditor.QueueLength).Evaluated
	if err := s.newRoots(leading); err != nil {
		return err
	}
	// Namespaces have an informer of their own.
	notify := func(old, current any) {
		before, _ := old.(*unstructured.Unstructured)
		after, _ := current.(*unstructured.Unstructured)
		if before != nil || after != nil {
			s.auditor.Changed(schema.GroupKind{Kind: "Namespace"}, before, after)
			s.roots.Changed(schema.GroupKind{Kind: "Namespace"}, before, after)
		}
	}
	if _, err := s.namespaces.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { notify(nil, o) }, UpdateFunc: notify, DeleteFunc: func(o any) { notify(o, nil) },
	}); err != nil {
		return fmt.Errorf("watching namespaces: %w", err)
	}
	if o.AuditBuildDir != "" {
		s.builder = &audit.Builder{
			Results: s.auditor.Results(), Policy: s.policies.Get, Objects: s.auditObjects(), Live: s.manager.GetAPIReader(), Mapper: s.manager.GetRESTMapper(),
			Dir: o.AuditBuildDir, Hosts: o.ArtifactHosts, AllowLoopback: o.ChartsAllowLocal, Excluded: webhookconfig.Excluded(o.Namespace),
			Interval: o.AuditInterval, Log: s.log.WithName("builds"),
			Reserve: func(ctx context.Context, bytes int64) (func(), error) { return s.webhooks.Reserve(ctx, bytes) },
		}
		s.builder.Observe = metrics.NewBuilds(s.registry, s.auditor.Results().BuildFindings).Built
	}
	if format == audit.NoReports {
		return nil
	}
	c, err := dynamic.NewForConfig(s.config)
	if err != nil {
		return fmt.Errorf("creating a client for the reports: %w", err)
	}
	s.reports = &audit.Reports{
		Results: s.auditor.Results(), Client: c, Format: format, Namespace: o.Namespace, Leading: leading, Log: s.log.WithName("reports"),
	}
	return nil
}

// auditObjects returns a view of the cluster. What the audit finds is for operators, not for whoever can connect, so that Secrets are
// read wherever RBAC allows it.
func (s *Server) auditObjects() *lookup.Cluster {
	objects := lookup.NewCluster(s.manager.GetCache(), s.manager.GetAPIReader(), s.manager.GetRESTMapper(), s.charts)
	objects.Withheld = []string{metav1.NamespaceSystem, s.options.Namespace}
	objects.Watched = func(gk schema.GroupKind) bool { return s.watches.Synced(gk) }
	return objects
}

// readable returns which kinds the audit reads: those with an informer, and those that the role of its rules has.
func readable(rules []*validators.Meta, informed []schema.GroupKind) func(schema.GroupKind) bool {
	kinds := map[schema.GroupKind]bool{{Kind: "Namespace"}: true}
	for _, gk := range informed {
		kinds[gk] = true
	}
	for _, m := range rules {
		if m.Stages.Has(validators.StageAdmission) || m.Component != "" {
			for _, gk := range m.Reads {
				kinds[gk] = true
			}
		}
	}
	return func(gk schema.GroupKind) bool { return kinds[gk] }
}

// newRoots creates what finds out why objects are not ready.
func (s *Server) newRoots(leading func() bool) error {
	s.roots = &audit.Roots{
		Cached: s.manager.GetCache(), Live: s.manager.GetAPIReader(), Watched: func(gk schema.GroupKind) bool { return s.watches.Synced(gk) && !lookup.MetadataOnly(gk) },
		Mapper: s.manager.GetRESTMapper(), Kinds: append(slices.DeleteFunc(s.informedKinds(), lookup.MetadataOnly), schema.GroupKind{Kind: "Namespace"}),
		Withheld: []string{metav1.NamespaceSystem, s.options.Namespace}, Leading: leading, Synced: s.auditor.Synced,
		Results: s.auditor.Results(), Log: s.log.WithName("roots"),
	}
	s.auditor.Results().ExpectRoots()
	if !s.options.AuditEvents {
		return nil
	}
	c, err := coreclient.NewForConfig(s.config)
	if err != nil {
		return fmt.Errorf("creating a client for Events: %w", err)
	}
	s.roots.Events = &audit.Events{Client: c, Log: s.log.WithName("events")}
	return nil
}

// changed returns the handler of the informers' events.
func (s *Server) changed() lookup.Changed {
	return func(gk schema.GroupKind, old, current *unstructured.Unstructured) {
		if s.prefetcher != nil {
			s.prefetcher.Changed(gk, old, current)
		}
		if s.auditor != nil {
			s.auditor.Changed(gk, old, current)
			s.roots.Changed(gk, old, current)
		}
		if s.builder != nil {
			s.builder.Changed(gk, old, current)
		}
	}
}
