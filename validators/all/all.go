// Package all lists the rules of the product. Adding a rule adds one line here.
package all

import (
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/cnpg"
	"github.com/flux-admission/flux-admission/validators/file"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
	"github.com/flux-admission/flux-admission/validators/kustomization"
	"github.com/flux-admission/flux-admission/validators/object"
	"github.com/flux-admission/flux-admission/validators/rbac"
	"github.com/flux-admission/flux-admission/validators/reference"
	"github.com/flux-admission/flux-admission/validators/resourceset"
	"github.com/flux-admission/flux-admission/validators/schema"
	"github.com/flux-admission/flux-admission/validators/source"
)

// Rules returns every rule, in the order of the documentation.
func Rules() []*validators.Rule {
	return []*validators.Rule{
		kustomization.Namespace,
		kustomization.TargetNamespace,
		kustomization.DependencyMissing,
		kustomization.DependencyCycle,
		kustomization.PathMissing,
		kustomization.BuildFailed,
		kustomization.VariableUnset,
		kustomization.NamespaceOverridden,
		kustomization.Unapplied,
		kustomization.HealthCheckMissing,
		kustomization.PruneMove,
		kustomization.DecryptionMissing,
		kustomization.PatchUnmatched,
		kustomization.NullInPatch,
		kustomization.ImageTagNumber,
		kustomization.SuspendedAwaited,
		kustomization.FieldDropped,
		kustomization.InputAppliedTooLate,
		kustomization.NothingLeft,
		kustomization.ImageUnmatched,
		source.Missing,
		source.CrossNamespace,
		source.InstancePatch,
		source.OCIAddress,
		source.GitAccess,
		helmrelease.ValuesSchema,
		helmrelease.UnknownKey,
		helmrelease.ChartNotFound,
		helmrelease.ValuesReferenceMissing,
		helmrelease.ReleaseMove,
		helmrelease.DependencyMissing,
		helmrelease.DependencyCycle,
		helmrelease.RenderFailed,
		helmrelease.RenderedInvalid,
		helmrelease.SchemaValidationHalfDisabled,
		helmrelease.ReleaseNameShared,
		helmrelease.NumberForText,
		helmrelease.ChartInRepositoryURL,
		helmrelease.ChartVersionFloating,
		helmrelease.ValuesNotComposable,
		resourceset.TemplateFailed,
		cnpg.MonitoringEnabled,
		cnpg.Bootstrap,
		schema.UnknownField,
		schema.InvalidValue,
		schema.APIVersionNotServed,
		schema.CRDMissing,
		schema.CRDAppliedTooLate,
		schema.CRDWithoutWait,
		object.AppliedTwice,
		object.DefaultClassShared,
		object.SecretInPlainText,
		reference.Missing,
		reference.NamespaceMissing,
		reference.NamespaceUnset,
		reference.NamespaceTooLate,
		helmrelease.NamespaceOfRelease,
		reference.NamespaceRenamed,
		rbac.SubjectNamespace,
		file.DuplicateKey,
		file.InvalidYAML,
		file.CommentInvalid,
		file.CommentUnused,
		file.ExemptionExpired,
		file.ExemptionUnused,
	}
}
