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

// rookDrivers are the names that Rook's operator answers to, after its namespace or the prefix that the chart's value gives in its stead. The spellings at the end
// of meant are taken for it as well.
var rookDrivers = []struct {
	name, meant string
	prefix      []string
}{
	{".ceph.rook.io/bucket", ".rook.io/bucket", []string{"spec", "values", "obcProvisionerNamePrefix"}},
	{".rbd.csi.ceph.com", ".rbd.csi.ceph.com", []string{"spec", "values", "csi", "csiDriverNamePrefix"}},
	{".cephfs.csi.ceph.com", ".cephfs.csi.ceph.com", []string{"spec", "values", "csi", "csiDriverNamePrefix"}},
}

// checkRookProvisioner reports a StorageClass or VolumeSnapshotClass for a Rook operator in a namespace that has none: claims of the class wait without an end,
// and nobody says why. Operators that are not installed by a HelmRelease of the tree are not known here, so without one nothing is reported.
func checkRookProvisioner(ctx context.Context, p *validators.Pass) {
	at := validators.NewPath("provisioner")
	switch p.Object.GroupVersionKind().GroupKind() {
	case storageClass:
	case schema.GroupKind{Group: "snapshot.storage.k8s.io", Kind: "VolumeSnapshotClass"}:
		at = validators.NewPath("driver")
	default:
		return
	}
	have, _ := at.Lookup(p.Object.Object).(string)
	for _, driver := range rookDrivers {
		if !strings.HasSuffix(have, driver.meant) {
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
		if len(names) == 0 || slices.Contains(names, have) {
			return
		}
		f := p.Report(at, have, "no Rook operator of the tree answers to %s; that of %s answers to %s", have, strings.Join(of, ", "), strings.Join(names, ", "))
		f.Key = have
		f.Fix = "Name the namespace that Rook's operator is installed in before the first dot. The field cannot be changed on a stored object: it has to be made anew."
		// No edit: Flux could not apply it to the object that is stored.
		return
	}
}
