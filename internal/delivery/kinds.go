package delivery

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators/flux"
)

// The kinds beside those of Flux that the graph knows by name.
var (
	namespaceKind  = schema.GroupKind{Kind: "Namespace"}
	secretKind     = schema.GroupKind{Kind: "Secret"}
	configMapKind  = schema.GroupKind{Kind: "ConfigMap"}
	serviceKind    = schema.GroupKind{Kind: "Service"}
	podKind        = schema.GroupKind{Kind: "Pod"}
	claimKind      = schema.GroupKind{Kind: "PersistentVolumeClaim"}
	deploymentKind = schema.GroupKind{Group: "apps", Kind: "Deployment"}
	statefulKind   = schema.GroupKind{Group: "apps", Kind: "StatefulSet"}
	daemonKind     = schema.GroupKind{Group: "apps", Kind: "DaemonSet"}
	replicaKind    = schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}
	jobKind        = schema.GroupKind{Group: "batch", Kind: "Job"}
	cronJobKind    = schema.GroupKind{Group: "batch", Kind: "CronJob"}
	crdKind        = schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
	apiServiceKind = schema.GroupKind{Group: "apiregistration.k8s.io", Kind: "APIService"}
	validatingKind = schema.GroupKind{Group: "admissionregistration.k8s.io", Kind: "ValidatingWebhookConfiguration"}
	mutatingKind   = schema.GroupKind{Group: "admissionregistration.k8s.io", Kind: "MutatingWebhookConfiguration"}

	artifactGeneratorKind = schema.GroupKind{Group: "source.extensions.fluxcd.io", Kind: "ArtifactGenerator"}

	externalSecretKind        = schema.GroupKind{Group: "external-secrets.io", Kind: "ExternalSecret"}
	clusterExternalSecretKind = schema.GroupKind{Group: "external-secrets.io", Kind: "ClusterExternalSecret"}
	secretStoreKind           = schema.GroupKind{Group: "external-secrets.io", Kind: "SecretStore"}
	clusterSecretStoreKind    = schema.GroupKind{Group: "external-secrets.io", Kind: "ClusterSecretStore"}

	certificateKind   = schema.GroupKind{Group: "cert-manager.io", Kind: "Certificate"}
	requestKind       = schema.GroupKind{Group: "cert-manager.io", Kind: "CertificateRequest"}
	issuerKind        = schema.GroupKind{Group: "cert-manager.io", Kind: "Issuer"}
	clusterIssuerKind = schema.GroupKind{Group: "cert-manager.io", Kind: "ClusterIssuer"}
	orderKind         = schema.GroupKind{Group: "acme.cert-manager.io", Kind: "Order"}
	challengeKind     = schema.GroupKind{Group: "acme.cert-manager.io", Kind: "Challenge"}

	cnpgClusterKind     = schema.GroupKind{Group: "postgresql.cnpg.io", Kind: "Cluster"}
	sealedSecretKind    = schema.GroupKind{Group: "bitnami.com", Kind: "SealedSecret"}
	snapshotKind        = schema.GroupKind{Group: "snapshot.storage.k8s.io", Kind: "VolumeSnapshot"}
	snapshotContentKind = schema.GroupKind{Group: "snapshot.storage.k8s.io", Kind: "VolumeSnapshotContent"}
	backupKind          = schema.GroupKind{Group: "velero.io", Kind: "Backup"}
	scheduleKind        = schema.GroupKind{Group: "velero.io", Kind: "Schedule"}
	backupLocationKind  = schema.GroupKind{Group: "velero.io", Kind: "BackupStorageLocation"}
	replicationKind     = schema.GroupKind{Group: "volsync.backube", Kind: "ReplicationSource"}
)

// Kinds are the kinds that the graph reads in any case, sorted. Of Secrets and ConfigMaps it needs the metadata only.
// The kinds of other objects are those in the inventories of Kustomizations and HelmReleases: see [InventoryKinds].
func Kinds() []schema.GroupKind {
	out := slices.Concat(sources, []schema.GroupKind{
		flux.Kustomization, flux.HelmRelease, artifactGeneratorKind,
		flux.ImageRepository, flux.ImagePolicy, flux.ImageUpdateAutomation, flux.Receiver,
		namespaceKind, secretKind, configMapKind, serviceKind, podKind, claimKind,
		deploymentKind, statefulKind, daemonKind, jobKind,
		crdKind, apiServiceKind, validatingKind, mutatingKind,
		externalSecretKind, clusterExternalSecretKind, secretStoreKind, clusterSecretStoreKind,
		certificateKind, requestKind, issuerKind, clusterIssuerKind, orderKind, challengeKind,
		cnpgClusterKind, sealedSecretKind, snapshotKind, snapshotContentKind,
		backupKind, scheduleKind, backupLocationKind, replicationKind,
	})
	slices.SortFunc(out, compareKinds)
	return out
}

func compareKinds(a, b schema.GroupKind) int {
	return strings.Compare(a.Group+"/"+a.Kind, b.Group+"/"+b.Kind)
}

// sources are the kinds of Flux that have an artifact.
var sources = []schema.GroupKind{
	flux.GitRepository, flux.OCIRepository, flux.Bucket, flux.HelmRepository, flux.HelmChart, flux.ExternalArtifact,
}

func isFlux(gk schema.GroupKind) bool {
	return strings.HasSuffix(gk.Group, ".toolkit.fluxcd.io") || gk == artifactGeneratorKind || gk.Group == "fluxcd.controlplane.io"
}

// resources are the kinds of resources in messages of the API server, "secrets "x" not found".
var resources = map[string]schema.GroupKind{
	"namespaces":             namespaceKind,
	"secrets":                secretKind,
	"configmaps":             configMapKind,
	"services":               serviceKind,
	"serviceaccounts":        {Kind: "ServiceAccount"},
	"persistentvolumeclaims": claimKind,
	"persistentvolumeclaim":  claimKind,
	"secret":                 secretKind,
	"configmap":              configMapKind,
	"serviceaccount":         {Kind: "ServiceAccount"},
	"service":                serviceKind,

	"storageclasses.storage.k8s.io":              {Group: "storage.k8s.io", Kind: "StorageClass"},
	"storageclass.storage.k8s.io":                {Group: "storage.k8s.io", Kind: "StorageClass"},
	"priorityclasses.scheduling.k8s.io":          {Group: "scheduling.k8s.io", Kind: "PriorityClass"},
	"deployments.apps":                           deploymentKind,
	"kustomizations.kustomize.toolkit.fluxcd.io": flux.Kustomization,
	"helmreleases.helm.toolkit.fluxcd.io":        flux.HelmRelease,
	"gitrepositories.source.toolkit.fluxcd.io":   flux.GitRepository,
	"ocirepositories.source.toolkit.fluxcd.io":   flux.OCIRepository,
	"helmrepositories.source.toolkit.fluxcd.io":  flux.HelmRepository,
	"helmcharts.source.toolkit.fluxcd.io":        flux.HelmChart,
	"buckets.source.toolkit.fluxcd.io":           flux.Bucket,
	"externalartifacts.source.toolkit.fluxcd.io": flux.ExternalArtifact,
	"issuer.cert-manager.io":                     issuerKind,
	"clusterissuer.cert-manager.io":              clusterIssuerKind,
	"issuers.cert-manager.io":                    issuerKind,
	"clusterissuers.cert-manager.io":             clusterIssuerKind,
	"secretstores.external-secrets.io":           secretStoreKind,
	"clustersecretstores.external-secrets.io":    clusterSecretStoreKind,
	"secretstore":        secretStoreKind,
	"clustersecretstore": clusterSecretStoreKind,
}

// clusterScoped are the kinds above that have no namespace.
var clusterScoped = []schema.GroupKind{
	namespaceKind, crdKind, apiServiceKind, validatingKind, mutatingKind, clusterSecretStoreKind, clusterIssuerKind, snapshotContentKind,
	{Group: "storage.k8s.io", Kind: "StorageClass"}, {Group: "scheduling.k8s.io", Kind: "PriorityClass"},
}
