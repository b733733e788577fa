package reference

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/flux"
)

// rookChart is the chart of Rook's operator.
const rookChart = "rook-ceph"

// rookDrivers are the provisioners of Rook's operator: its namespace, or the prefix in the chart's value, followed by
// name. A provisioner that ends in suffix is treated as an intended Rook driver.
var rookDrivers = []struct {
	name, suffix string
	prefix       []string
}{
	{".ceph.rook.io/bucket", ".rook.io/bucket", []string{"spec", "values", "obcProvisionerNamePrefix"}},
	{".rbd.csi.ceph.com", ".rbd.csi.ceph.com", []string{"spec", "values", "csi", "csiDriverNamePrefix"}},
	{".cephfs.csi.ceph.com", ".cephfs.csi.ceph.com", []string{"spec", "values", "csi", "csiDriverNamePrefix"}},
}

// checkRookProvisioner reports a StorageClass or VolumeSnapshotClass whose provisioner no Rook operator handles: its
// claims wait forever without an error. Only operators that a HelmRelease of the tree installs are known, so nothing is
// reported without one.
func checkRookProvisioner(ctx context.Context, p *validators.Pass) {
	at := validators.NewPath("provisioner")
	switch p.Object.GroupVersionKind().GroupKind() {
	case storageClass:
	case schema.GroupKind{Group: "snapshot.storage.k8s.io", Kind: "VolumeSnapshotClass"}:
		at = validators.NewPath("driver")
	default:
		return
	}
	provisioner, _ := at.Lookup(p.Object.Object).(string)
	for _, driver := range rookDrivers {
		if !strings.HasSuffix(provisioner, driver.suffix) {
			continue
		}
		var names, of []string
		releases, presence, _ := p.Lookup.List(ctx, flux.HelmRelease, "")
		if presence == validators.Unknown {
			return
		}
		for _, o := range releases {
			if chartName(o) == rookChart {
				names = append(names, field(o, effectiveNamespace(o), driver.prefix...)+driver.name)
				of = append(of, "HelmRelease "+o.GetNamespace()+"/"+o.GetName())
			}
		}
		if len(names) == 0 || slices.Contains(names, provisioner) {
			return
		}
		f := p.Report(
			at,
			provisioner,
			"no Rook operator in the tree handles %s; that of %s handles %s",
			provisioner,
			strings.Join(of, ", "),
			strings.Join(names, ", "),
		)
		f.Key = provisioner
		f.Fix = "Begin the name with the namespace of Rook's operator. The field is immutable: delete and recreate the object."
		// No edit: Flux could not apply it to the stored object.
		return
	}
}
