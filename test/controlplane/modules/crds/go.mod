// Pins the modules whose CRDs the test bench installs. Nothing imports them,
// so `go mod tidy` would empty this file; a test holds it and go.sum together.
module github.com/flux-admission/flux-admission/test/controlplane/modules/crds

go 1.26.0

require (
	github.com/cloudnative-pg/cloudnative-pg v1.27.0
	github.com/external-secrets/external-secrets v1.3.2
	github.com/fluxcd/helm-controller v1.4.0
	github.com/fluxcd/kustomize-controller v1.9.6
	github.com/fluxcd/source-controller v1.9.6
	github.com/kubernetes-csi/external-snapshotter/client/v8 v8.7.0
)
