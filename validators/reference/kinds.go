// Package reference has the rules on references from any object to objects of Kubernetes and of common operators.
package reference

import "k8s.io/apimachinery/pkg/runtime/schema"

// The kinds of referenced objects.
var (
	secret             = schema.GroupKind{Kind: "Secret"}
	configMap          = schema.GroupKind{Kind: "ConfigMap"}
	serviceAccount     = schema.GroupKind{Kind: "ServiceAccount"}
	volumeClaim        = schema.GroupKind{Kind: "PersistentVolumeClaim"}
	storageClass       = schema.GroupKind{Group: "storage.k8s.io", Kind: "StorageClass"}
	secretStore        = schema.GroupKind{Group: "external-secrets.io", Kind: "SecretStore"}
	clusterSecretStore = schema.GroupKind{Group: "external-secrets.io", Kind: "ClusterSecretStore"}
	issuer             = schema.GroupKind{Group: "cert-manager.io", Kind: "Issuer"}
	clusterIssuer      = schema.GroupKind{Group: "cert-manager.io", Kind: "ClusterIssuer"}
)

// The kinds of objects that create them.
var (
	job                   = schema.GroupKind{Group: "batch", Kind: "Job"}
	statefulSet           = schema.GroupKind{Group: "apps", Kind: "StatefulSet"}
	persistentVolume      = schema.GroupKind{Kind: "PersistentVolume"}
	externalSecret        = schema.GroupKind{Group: "external-secrets.io", Kind: "ExternalSecret"}
	clusterExternalSecret = schema.GroupKind{Group: "external-secrets.io", Kind: "ClusterExternalSecret"}
	sealedSecret          = schema.GroupKind{Group: "bitnami.com", Kind: "SealedSecret"}
	certificate           = schema.GroupKind{Group: "cert-manager.io", Kind: "Certificate"}
	trustBundle           = schema.GroupKind{Group: "trust.cert-manager.io", Kind: "Bundle"}
	cnpgCluster           = schema.GroupKind{Group: "postgresql.cnpg.io", Kind: "Cluster"}
	bucketClaim           = schema.GroupKind{Group: "objectbucket.io", Kind: "ObjectBucketClaim"}
	cephObjectUser        = schema.GroupKind{Group: "ceph.rook.io", Kind: "CephObjectStoreUser"}
	vaultStaticSecret     = schema.GroupKind{Group: "secrets.hashicorp.com", Kind: "VaultStaticSecret"}
	vaultDynamicSecret    = schema.GroupKind{Group: "secrets.hashicorp.com", Kind: "VaultDynamicSecret"}
	vaultPKISecret        = schema.GroupKind{Group: "secrets.hashicorp.com", Kind: "VaultPKISecret"}
	infisicalSecret       = schema.GroupKind{Group: "secrets.infisical.com", Kind: "InfisicalSecret"}
	clusterPolicy         = schema.GroupKind{Group: "kyverno.io", Kind: "ClusterPolicy"}
	kyvernoPolicy         = schema.GroupKind{Group: "kyverno.io", Kind: "Policy"}
	onePasswordItem       = schema.GroupKind{Group: "onepassword.com", Kind: "OnePasswordItem"}
)
