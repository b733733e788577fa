package source

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// OCIAddress is the rule source-oci-address.
//
// The CRDs accept every oci:// address. source-controller 1.9 reads a HelmRepository as an index over HTTP unless its
// type is oci (getter: scheme "oci" not supported), takes an address without oci:// for no registry if it is
// (helmchart_controller: invalid OCI registry URL), and refuses an OCIRepository whose URL has a tag or a digest
// (ocirepository_controller: parseRepository).
var OCIAddress = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SO004",
		Name:     "source-oci-address",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.HelmRepository, flux.OCIRepository}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "OCI address does not fit the source",
			Why: "source-controller cannot read the source and does not try again: no release of its charts is " +
				"installed or upgraded, and nothing of it is applied.",
			Fix: "Set type: oci for a HelmRepository with an oci:// URL and for no other one, and write the tag or " +
				"digest of an OCIRepository in spec.ref.",
			Since: "v0.1.0",
		},
	},
	Check: checkOCIAddress,
}

const (
	ociScheme = "oci://"
	ociType   = "oci"
)

func checkOCIAddress(_ context.Context, p *validators.Pass) error {
	at := validators.NewPath("spec", "url")
	url, _ := at.Lookup(p.Object.Object).(string)
	if url == "" || unresolved.String(url) {
		return nil
	}
	if p.Object.GroupVersionKind().GroupKind() == flux.OCIRepository {
		checkRepositoryName(p, at, url)
		return nil
	}
	kind := validators.NewPath("spec", "type")
	written, _ := kind.Lookup(p.Object.Object).(string)
	switch {
	case unresolved.String(written):
	case strings.HasPrefix(url, ociScheme) && written != ociType:
		f := p.Report(at, url, "%s is an OCI registry; spec.type must be oci", url)
		f.Fix = "Set spec.type: oci."
		f.Edits = []validators.Edit{flux.Set(p.Object.Object, kind, ociType)}
	case !strings.HasPrefix(url, ociScheme) && written == ociType:
		f := p.Report(at, url, "%s is no OCI registry; with type: oci the URL must begin with oci://", url)
		f.Fix = "Begin the URL with oci://, or remove spec.type if the repository has an index.yaml."
	}
	return nil
}

// checkRepositoryName reports a tag or a digest behind the name of an OCIRepository.
func checkRepositoryName(p *validators.Pass, at validators.Path, url string) {
	name, ok := strings.CutPrefix(url, ociScheme)
	if !ok {
		return // the CRD rejects it
	}
	_, repository, ok := strings.Cut(name, "/") // the registry may have a port
	if !ok {
		return
	}
	field, i := "digest", strings.Index(repository, "@")
	if i < 0 {
		field, i = "tag", strings.Index(repository, ":")
	}
	if i < 0 {
		return
	}
	f := p.Report(at, url, "the URL %s has a %s; it belongs in spec.ref.%s", url, field, field)
	f.Fix = "Remove " + repository[i:] + " from the URL, and set spec.ref." + field + "."
	ref := validators.NewPath("spec", "ref")
	if ref.Lookup(p.Object.Object) == nil && field == "tag" {
		f.Edits = []validators.Edit{
			{Op: validators.EditReplace, Path: at, Value: strings.TrimSuffix(url, repository[i:])},
			{Op: validators.EditAdd, Path: ref, Value: map[string]any{field: repository[i+1:]}},
		}
	}
}
