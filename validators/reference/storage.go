package reference

import (
	"context"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/validators"
)

// providedClasses returns the StorageClasses that distributions and cluster providers install (K3s, k0s, MicroK8s, Docker
// Desktop, minikube, kind, OpenShift, EKS, GKE, AKS, DigitalOcean, Hetzner, Linode, Vultr, Scaleway, OVHcloud, Exoscale,
// Civo, UpCloud, OCI), as of November 2026.
func providedClasses() []string {
	return []string{
		"local-path",
		"openebs-hostpath",
		"microk8s-hostpath",
		"hostpath",
		"csi-hostpath-sc",
		"thin-csi",
		"gp2-csi",
		"gp3-csi",
		"gp2",
		"gp3",
		"standard",
		"standard-rwo",
		"premium-rwo",
		"standard-rwx",
		"premium-rwx",
		"enterprise-rwx",
		"enterprise-multishare-rwx",
		"zonal-rwx",
		"default",
		"managed",
		"managed-csi",
		"managed-csi-premium",
		"managed-premium",
		"azurefile",
		"azurefile-csi",
		"azurefile-csi-premium",
		"azurefile-premium",
		"azureblob-fuse-premium",
		"azureblob-nfs-premium",
		"do-block-storage",
		"do-block-storage-retain",
		"do-block-storage-xfs",
		"do-block-storage-xfs-retain",
		"hcloud-volumes",
		"linode-block-storage",
		"linode-block-storage-retain",
		"vultr-block-storage",
		"vultr-block-storage-hdd",
		"vultr-vfs-storage",
		"scw-bssd",
		"scw-bssd-retain",
		"sbs-default",
		"sbs-default-retain",
		"csi-cinder-classic",
		"csi-cinder-high-speed",
		"csi-cinder-high-speed-gen2",
		"exoscale-sbs",
		"exoscale-bs-retain",
		"civo-volume",
		"upcloud-block-storage-maxiops",
		"upcloud-block-storage-standard",
		"oci",
		"oci-bv",
	}
}

// definedOtherwise reports whether a chart's values define a StorageClass, or PersistentVolumes use it without a class
// object.
func definedOtherwise(ctx context.Context, p *validators.Pass, name string) bool {
	volumes, _, _ := p.Lookup.List(ctx, persistentVolume, "")
	for _, o := range volumes {
		if field(o, "", "spec", "storageClassName") == name {
			return true
		}
	}
	for _, o := range releases(ctx, p) {
		if slices.ContainsFunc(valuesOf(ctx, p, o, strings.ToLower(name)), func(values any) bool { return defines(values, name) }) {
			return true
		}
	}
	return false
}

// defines reports whether a name occurs in values other than as a reference to a class (storageClass: name,
// cacheStorageClassName: name).
func defines(v any, name string) bool {
	switch v := v.(type) {
	case string:
		return v == name
	case []any:
		return slices.ContainsFunc(v, func(item any) bool { return defines(item, name) })
	case map[string]any:
		for key, item := range v {
			if _, ok := item.(string); ok && refersToClass(key) {
				continue
			}
			if key == name || defines(item, name) {
				return true
			}
		}
	}
	return false
}

func refersToClass(key string) bool {
	key = strings.ToLower(key)
	return strings.HasSuffix(key, "storageclass") || strings.HasSuffix(key, "storageclassname")
}

// classesOfCharts returns the names of StorageClasses in values of the usual form: storageClass: {name: ...}.
func classesOfCharts(ctx context.Context, p *validators.Pass) []string {
	var out []string
	var walk func(key string, v any)
	walk = func(key string, v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				walk(key, item)
			}
		case map[string]any:
			if name, ok := v["name"].(string); ok && strings.HasPrefix(strings.ToLower(key), "storageclass") {
				out = append(out, name)
			}
			for key, item := range v {
				walk(key, item)
			}
		}
	}
	for _, o := range releases(ctx, p) {
		for _, values := range valuesOf(ctx, p, o, "storageclass") {
			walk("", values)
		}
	}
	return out
}
