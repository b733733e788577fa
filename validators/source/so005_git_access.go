package source

import (
	"context"
	"net/url"
	"regexp"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/internal/unresolved"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// GitAccess is the rule source-git-access.
//
// The CRD accepts every URL that begins with a known scheme. source-controller 1.10 parses it with net/url, which takes
// what follows the colon of git@host:path for a port, needs a key for ssh (fluxcd/pkg/git: AuthOptions.Validate), and the
// data of the app for the provider github (gitrepository_controller: getAuthOpts).
var GitAccess = &validators.Rule{
	Meta: validators.Meta{
		ID:       "SO005",
		Name:     "source-git-access",
		Scope:    validators.Scope{Kinds: []schema.GroupKind{flux.GitRepository}},
		Stages:   validators.StageAll,
		Severity: validators.SeverityError,
		Defaults: validators.Defaults{Admission: v1alpha1.ActionDeny, Offline: v1alpha1.ActionDeny},
		Doc: validators.Doc{
			Title: "Git repository cannot be read",
			Why: "source-controller cannot fetch the repository, whatever is in it: nothing that has it as its source " +
				"is applied.",
			Fix:   "Write the URL as ssh://git@HOST/PATH, and set spec.secretRef to a Secret with the credentials.",
			Since: "v0.1.0",
		},
	},
	Check: checkGitAccess,
}

// scpLike matches the form of an SSH address that Git takes without a scheme, behind one: ssh://git@host:path.
var scpLike = regexp.MustCompile(`^(ssh://[^/:]+):([^/0-9].*|[0-9]+[^/0-9].*)$`)

func checkGitAccess(_ context.Context, p *validators.Pass) error {
	at := validators.NewPath("spec", "url")
	text, _ := at.Lookup(p.Object.Object).(string)
	if text == "" || unresolved.String(text) {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil {
		f := p.Report(at, text, "source-controller cannot parse the URL: what follows a colon behind the host must be the number of a port")
		if m := scpLike.FindStringSubmatch(text); m != nil {
			f.Fix = "Write " + m[1] + "/" + m[2] + "."
			f.Edits = []validators.Edit{{Op: validators.EditReplace, Path: at, Value: m[1] + "/" + m[2]}}
		} else {
			f.Message = "source-controller cannot parse the URL"
			f.Fix = "Write a URL of the form https://HOST/PATH or ssh://git@HOST/PATH."
		}
		return nil
	}
	suspended, _, _ := unstructured.NestedBool(p.Object.Object, "spec", "suspend")
	secret, _, _ := unstructured.NestedString(p.Object.Object, "spec", "secretRef", "name")
	provider, _, _ := unstructured.NestedString(p.Object.Object, "spec", "provider")
	switch {
	case suspended || secret != "":
	case u.Scheme == "ssh":
		f := p.Report(at, text, "an ssh:// URL needs a key, and spec.secretRef is not set")
		f.Fix = "Set spec.secretRef to a Secret with the keys identity and known_hosts, or write an https:// URL for a public repository."
	case provider == "github":
		f := p.Report(validators.NewPath("spec", "provider"), provider, "the provider github needs the data of the app, and spec.secretRef is not set")
		f.Fix = "Set spec.secretRef to a Secret with the ID, the installation and the key of the GitHub App, or remove spec.provider."
	}
	return nil
}
