package delivery

import (
	"fmt"
	"strings"

	"github.com/flux-admission/flux-admission/validators/flux"
)

// fix returns what to do about a root, as an imperative.
func fix(n *node, r *Root) string {
	manifest := "the manifest"
	if r.Owner != nil && *r.Owner != n.ref {
		manifest = "the manifest that " + r.Owner.String() + " applies"
	}
	switch n.state {
	case Suspended:
		return fmt.Sprintf("Resume it: flux resume %s, or remove spec.suspend in Git", fluxName(n.ref))
	case Missing:
		return fixMissing(n, r)
	case Terminating:
		return fixTerminating(n, r)
	case InProgress:
		switch n.cause {
		case CauseNotReconciled, CauseRevisionLags:
			return "Wait for its controller; if this lasts, read the log of the controller"
		default:
			return "Wait: it is tried again without anybody's help"
		}
	case Unknown:
		if n.cause == CauseNotRead {
			return "Read it too: it is not among the objects that were given"
		}
		return "Read its events and the log of its controller: the cause cannot be determined from its status"
	default:
	}
	switch n.cause {
	case CauseDenied:
		return "Change " + manifest + " as the message of the admission webhook or policy requires"
	case CauseSchema, CauseValues:
		return "Correct the field that the message names in " + manifest
	case CauseRetries:
		return fmt.Sprintf("Repair the cause, then: flux reconcile %s --reset", fluxName(n.ref))
	case CauseInstall, CauseUpgrade, CauseRollback, CauseUninstall, CauseTest:
		return fmt.Sprintf("Repair what the message of Helm names; if retries are exhausted: flux reconcile %s --reset", fluxName(n.ref))
	case CauseRevisionLags:
		return fmt.Sprintf("Reconcile it: flux reconcile %s; then read the log of kustomize-controller", fluxName(n.ref))
	default:
		if text := fixes[n.cause]; text != "" {
			return text
		}
	}
	if n.ref.GroupKind() == externalSecretKind {
		return "Correct the entry of the provider that the message names"
	}
	return "Repair what the message names"
}

// fixes are what to do about causes, whatever the object.
var fixes = map[Cause]string{
	CauseCycle:              "Remove one of the dependencies in the cycle",
	CauseDependencyKind:     "Depend on an object of the same kind: on the Kustomization that applies the HelmRelease, or the reverse",
	CauseKeyMissing:         "Add the key, or correct the reference to it",
	CausePathMissing:        "Correct spec.path, or commit the directory",
	CauseHealthCheckMissing: "Correct or remove the entry of spec.healthChecks",
	CauseImmutable:          "Restore the immutable field, or delete the object, so that it is created again; a Kustomization does that with spec.force",
	CauseForbidden:          "Grant the permission to the service account that applies it",
	CauseQuota:              "Raise the quota of the namespace, or request less",
	CauseConflict:           "Remove the field that another manager owns, or the other manager",
	CauseNoNamespace:        "Set metadata.namespace in the manifest, or spec.targetNamespace of the Kustomization",
	CauseWebhook:            "Start the server of the webhook again; if it is gone for good, delete the webhook configuration",
	CauseAPIService:         "Start the server of the API service again; if it is gone for good, delete the APIService",
	CauseVersionNotServed:   "Use a version that the CRD serves",
	CauseVersion:            "Set a chart and a version that exist in the repository",
	CauseAuthentication:     "Correct the credentials of the source",
	CauseFetch:              "Check the URL, the reference and the connection of the source",
	CauseTransient:          "Check the connection to the server that the message names",
	CauseVerification:       "Check the signature and the key of the source",
	CauseBuild:              "Correct the files that do not build; flux-admission build shows the same error on the tree",
	CauseDecryption:         "Configure spec.decryption with the key that the file was encrypted for",
	CauseAccess:             "Refer to a source in the same namespace, or allow the reference",
	CauseConfiguration:      "Correct the field that the message names",
}

func fixMissing(n *node, r *Root) string {
	switch n.ref.GroupKind() {
	case namespaceKind:
		return "Create the namespace, in a Kustomization that the others depend on"
	case crdKind:
		return "Install the CRD before objects of its kind: in a Kustomization of its own that the others depend on"
	case secretKind:
		return "Create the Secret, or the ExternalSecret that makes it"
	case flux.Kustomization, flux.HelmRelease:
		return "Create it, or correct the dependsOn that names it"
	}
	if r.Owner != nil && len(r.Blocked) > 0 && r.Owner.Kind == flux.Kustomization.Kind {
		return fmt.Sprintf("Create it, or have it applied again: flux reconcile %s", fluxName(*r.Owner))
	}
	return "Create it, or correct the reference to it"
}

func fixTerminating(n *node, r *Root) string {
	var gone, alive, unknown []string
	for _, f := range r.Finalizers {
		switch f.Controller {
		case Gone:
			gone = append(gone, f.Name)
		case Alive:
			alive = append(alive, f.Name)
		default:
			unknown = append(unknown, f.Name)
		}
	}
	switch {
	case len(gone) > 0:
		return fmt.Sprintf("Install the controller of %s again, so that it cleans up; only if that is impossible, remove the finalizer", strings.Join(gone, ", "))
	case len(alive) > 0:
		return fmt.Sprintf("Read the log of the controller of %s: it runs, and does not finish", strings.Join(alive, ", "))
	case len(unknown) > 0:
		return fmt.Sprintf("Find out whether the controller of %s runs, before anything is removed", strings.Join(unknown, ", "))
	case n.ref.GroupKind() == crdKind:
		return "List the instances with their finalizers: the CRD goes when they are gone"
	}
	return "Find out what keeps it: its conditions, its finalizers, and objects that it owns"
}

// fluxName returns the arguments with which the Flux CLI names an object.
func fluxName(r Ref) string {
	kind := strings.ToLower(r.Kind)
	switch r.GroupKind() {
	case flux.GitRepository:
		kind = "source git"
	case flux.OCIRepository:
		kind = "source oci"
	case flux.HelmRepository:
		kind = "source helm"
	case flux.Bucket:
		kind = "source bucket"
	case flux.HelmChart:
		kind = "source chart"
	}
	return fmt.Sprintf("%s %s -n %s", kind, r.Name, r.Namespace)
}
