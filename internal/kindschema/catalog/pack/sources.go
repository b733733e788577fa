package pack

import "slices"

// source is where a project's CustomResourceDefinitions are: a module and, in it, files, or Go types to generate them from.
type source struct {
	// project is the name for a person, version the release that the definitions are of.
	project, version string
	// module and moduleVersion are what the module proxy serves.
	module, moduleVersion string
	// files are patterns of path.Match, relative to the module's root; skip are patterns of those that are left out.
	files, skip []string
	// types are the packages below the module of whose types controller-gen makes the definitions; used without files.
	types []string
	// thirdParty means that nothing of the project's releases is known but this one.
	thirdParty bool
}

// fluxOperator ships the definitions of each Flux release under config/data/flux.
const fluxOperator, fluxOperatorVersion = "github.com/controlplaneio-fluxcd/flux-operator", "v0.59.0"

// fluxReleases are the newest patch releases of the Flux minors that the Flux Operator's module ships, oldest first.
func fluxReleases() []string {
	return []string{"2.2.3", "2.3.0", "2.4.0", "2.5.1", "2.6.4", "2.7.5", "2.8.8", "2.9.5"}
}

// flux210 is the release of Flux whose definitions come from the modules of its controllers.
const flux210 = "2.10.0"

// sources are all sources: those of Flux in the order of its releases, then the other projects by name.
func sources() []source {
	var out []source
	for _, release := range fluxReleases() {
		out = append(out, source{
			project: "Flux", version: release, module: fluxOperator, moduleVersion: fluxOperatorVersion,
			files: []string{"config/data/flux/v" + release + "/*.yaml"},
		})
	}
	flux := func(module, version string, s source) {
		s.project, s.version, s.module, s.moduleVersion = "Flux", flux210, "github.com/fluxcd/"+module, version
		out = append(out, s)
	}
	flux("kustomize-controller", "v1.10.1", source{files: []string{"config/crd/bases/*.yaml"}})
	flux("source-controller", "v1.10.1", source{files: []string{"config/crd/bases/*.yaml"}})
	flux("helm-controller/api", "v1.7.1", source{types: []string{"v2"}})
	flux("notification-controller/api", "v1.10.0", source{types: []string{"v1", "v1beta3"}})
	flux("image-reflector-controller/api", "v1.3.0", source{types: []string{"v1"}})
	flux("image-automation-controller/api", "v1.3.0", source{types: []string{"v1"}})
	flux("source-watcher/api/v2", "v2.3.1", source{types: []string{"v1beta1"}})
	return slices.Concat(out, projects())
}

func projects() []source {
	s := func(project, module, version string, files ...string) source {
		return source{project: project, version: version[1:], module: module, moduleVersion: version, files: files}
	}
	operators := []source{
		s("Flux Operator", fluxOperator, fluxOperatorVersion, "config/crd/bases/*.yaml"),
		s("CloudNativePG", "github.com/cloudnative-pg/cloudnative-pg", "v1.30.0", "config/crd/bases/*.yaml"),
		s("External Secrets", "github.com/external-secrets/external-secrets", "v1.3.2", "config/crds/bases/*.yaml"),
		s("external-snapshotter", "github.com/kubernetes-csi/external-snapshotter/client/v8", "v8.7.0", "config/crd/*.yaml"),
	}
	thirdParty := []source{
		s("Argo CD", "github.com/argoproj/argo-cd/v3", "v3.6.1", "manifests/crds/*.yaml"),
		s("Argo Rollouts", "github.com/argoproj/argo-rollouts", "v1.10.2", "manifests/crds/*.yaml"),
		s("cert-manager", "github.com/cert-manager/cert-manager", "v1.21.2", "deploy/crds/*.yaml"),
		s("Cilium", "github.com/cilium/cilium", "v1.20.2", "pkg/k8s/apis/cilium.io/client/crds/v2*/*.yaml"),
		s("Cluster API", "sigs.k8s.io/cluster-api", "v1.14.2",
			"core/config/crd/bases/*.yaml", "bootstrap/kubeadm/config/crd/bases/*.yaml", "controlplane/kubeadm/config/crd/bases/*.yaml"),
		s("Contour", "github.com/projectcontour/contour", "v1.33.8", "examples/contour/01-crds.yaml"),
		s("Envoy Gateway", "github.com/envoyproxy/gateway", "v1.9.1", "charts/gateway-helm/charts/crds/crds/generated/*.yaml"),
		s("Flagger", "github.com/fluxcd/flagger", "v1.36.1", "artifacts/flagger/crd.yaml"),
		s("Gateway API", "sigs.k8s.io/gateway-api", "v1.7.0", "config/crd/experimental/*.yaml"),
		s("Istio", "istio.io/api", "v1.32.0", "kubernetes/customresourcedefinitions.gen.yaml"),
		s("KEDA", "github.com/kedacore/keda/v2", "v2.21.0", "config/crd/bases/*.yaml"),
		s("Kyverno", "github.com/kyverno/kyverno", "v1.19.1",
			"config/crds/kyverno/*.yaml", "config/crds/policies.kyverno.io/*.yaml", "config/crds/policyreport/*.yaml", "config/crds/reports/*.yaml"),
		s("MetalLB", "go.universe.tf/metallb", "v0.16.2", "config/crd/bases/*.yaml"),
		{
			project: "Prometheus Operator", version: "0.95.2", module: "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring",
			moduleVersion: "v0.95.2", types: []string{"v1", "v1alpha1", "v1beta1"},
		},
		s("Sealed Secrets", "github.com/bitnami-labs/sealed-secrets", "v0.40.0", "helm/sealed-secrets/crds/*.yaml"),
		s("Traefik", "github.com/traefik/traefik/v3", "v3.7.13", "docs/content/reference/dynamic-configuration/traefik.io_*.yaml"),
		s("Velero", "github.com/vmware-tanzu/velero", "v1.18.3", "config/crd/v1/bases/*.yaml", "config/crd/v2alpha1/bases/*.yaml"),
	}
	for i := range thirdParty {
		thirdParty[i].thirdParty = true
	}
	return slices.Concat(operators, thirdParty)
}
