package reference

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
)

// The kinds of CloudNativePG and of its Barman Cloud plugin that others refer to.
var (
	imageCatalog        = schema.GroupKind{Group: cnpgCluster.Group, Kind: "ImageCatalog"}
	clusterImageCatalog = schema.GroupKind{Group: cnpgCluster.Group, Kind: "ClusterImageCatalog"}
	objectStore         = schema.GroupKind{Group: "barmancloud.cnpg.io", Kind: "ObjectStore"}
)

const barmanPlugin = "barman-cloud.cloudnative-pg.io"

// cnpg adds the references of an object of CloudNativePG. All but those to a ClusterImageCatalog are to objects in its
// own namespace (https://cloudnative-pg.io/documentation/current/cloudnative-pg.v1/). It returns false for the other
// kinds.
func (c *collector) cnpg(gk schema.GroupKind) bool {
	spec := validators.NewPath("spec")
	namespace := c.pass.Object.GetNamespace()
	switch gk {
	case cnpgCluster:
		c.cnpgCluster(spec, namespace)
	case objectStore:
		c.cnpgStore(spec.Child("configuration"), namespace)
	case schema.GroupKind{Group: cnpgCluster.Group, Kind: "Pooler"}:
		c.add(spec.Child("cluster", "name"), cnpgCluster, namespace)
		c.add(spec.Child("pgbouncer", "authQuerySecret", "name"), secret, namespace)
	case schema.GroupKind{Group: cnpgCluster.Group, Kind: "ScheduledBackup"},
		schema.GroupKind{Group: cnpgCluster.Group, Kind: "Backup"},
		schema.GroupKind{Group: cnpgCluster.Group, Kind: "Database"},
		schema.GroupKind{Group: cnpgCluster.Group, Kind: "Publication"},
		schema.GroupKind{Group: cnpgCluster.Group, Kind: "Subscription"}:
		c.add(spec.Child("cluster", "name"), cnpgCluster, namespace)
	default:
		return false
	}
	return true
}

func (c *collector) cnpgCluster(spec validators.Path, namespace string) {
	c.class(spec.Child("storage", "storageClass"))
	c.class(spec.Child("walStorage", "storageClass"))
	c.each(spec.Child("tablespaces"), func(at validators.Path) { c.class(at.Child("storage", "storageClass")) })
	bootstrap := spec.Child("bootstrap")
	for _, method := range []string{"initdb", "recovery", "pg_basebackup"} {
		c.add(bootstrap.Child(method, "secret", "name"), secret, namespace)
	}
	c.add(spec.Child("superuserSecret", "name"), secret, namespace)
	c.each(spec.Child("managed", "roles"), func(at validators.Path) { c.add(at.Child("passwordSecret", "name"), secret, namespace) })
	c.each(spec.Child("imagePullSecrets"), func(at validators.Path) { c.add(at.Child("name"), secret, namespace) })
	for field, to := range map[string]schema.GroupKind{"customQueriesConfigMap": configMap, "customQueriesSecret": secret} {
		c.each(spec.Child("monitoring", field), func(at validators.Path) {
			if at := at.Child("name"); at.Lookup(c.root) != cnpgQueries {
				c.add(at, to, namespace)
			}
		})
	}
	for _, field := range []string{"serverCASecret", "serverTLSSecret", "clientCASecret", "replicationTLSSecret"} {
		c.add(spec.Child("certificates", field), secret, namespace)
	}
	c.cnpgStore(spec.Child("backup", "barmanObjectStore"), namespace)
	c.each(spec.Child("externalClusters"), func(at validators.Path) {
		for _, field := range []string{"password", "sslKey", "sslCert", "sslRootCert"} {
			c.add(at.Child(field, "name"), secret, namespace)
		}
		c.cnpgStore(at.Child("barmanObjectStore"), namespace)
		c.cnpgPlugin(at.Child("plugin"), namespace)
	})
	c.each(spec.Child("plugins"), func(at validators.Path) { c.cnpgPlugin(at, namespace) })
	catalog := spec.Child("imageCatalogRef")
	switch catalog.Child("kind").Lookup(c.root) {
	case imageCatalog.Kind:
		c.add(catalog.Child("name"), imageCatalog, namespace)
	case clusterImageCatalog.Kind:
		c.add(catalog.Child("name"), clusterImageCatalog, "")
	}
}

// cnpgQueries is the name under which the operator copies its default queries to the namespaces of its Clusters.
const cnpgQueries = "cnpg-default-monitoring"

// cnpgStore adds the credentials of an object store, each a reference to a Secret's key.
func (c *collector) cnpgStore(at validators.Path, namespace string) {
	for _, keys := range [][]string{
		{"s3Credentials", "accessKeyId", "secretAccessKey", "region", "sessionToken"},
		{"azureCredentials", "connectionString", "storageAccount", "storageKey", "storageSasToken"},
		{"googleCredentials", "applicationCredentials"},
	} {
		for _, field := range keys[1:] {
			c.add(at.Child(keys[0], field, "name"), secret, namespace)
		}
	}
	c.add(at.Child("endpointCA", "name"), secret, namespace)
}

// cnpgPlugin adds the ObjectStore of the Barman Cloud plugin.
func (c *collector) cnpgPlugin(at validators.Path, namespace string) {
	if at.Child("name").Lookup(c.root) == barmanPlugin {
		c.add(at.Child("parameters", "barmanObjectName"), objectStore, namespace)
	}
}

// cnpgMayCreate reports whether the chart of a release may create an object of CloudNativePG: its values or its chart
// name the kind or the object.
func cnpgMayCreate(o *unstructured.Unstructured, r reference) bool {
	if r.key.Namespace != "" && effectiveNamespace(o) != r.key.Namespace {
		return false
	}
	values, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "values")
	return mentions(values, r.key.Name) || mentions(values, r.to.Kind) || sharesWord(o, r.key.Name) || chartName(o) == "cluster"
}

// mentions reports whether a key or a text of the values contains the text.
func mentions(v any, text string) bool {
	return anyText(v, func(s string) bool { return s == text })
}

func anyText(v any, found func(string) bool) bool {
	switch v := v.(type) {
	case string:
		return found(v)
	case map[string]any:
		for key, item := range v {
			if found(key) || anyText(item, found) {
				return true
			}
		}
	case []any:
		for _, item := range v {
			if anyText(item, found) {
				return true
			}
		}
	}
	return false
}
