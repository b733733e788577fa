package kindschema

import (
	_ "embed" // the table
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/validators"
)

//go:embed lifecycle.yaml
var lifecycleText []byte

// removal are versions of a group, or of one of its kinds, that are no longer served.
type removal struct {
	Group    string   `json:"group"`
	Kind     string   `json:"kind"`
	Versions []string `json:"versions"`
	// Since names the release.
	Since string `json:"since"`
	// Kubernetes is the minor version of Kubernetes 1.x that dropped the kind; 0 for other projects.
	Kubernetes int `json:"kubernetes"`
}

var lifecycle = sync.OnceValues(func() ([]removal, error) {
	var out []removal
	if err := yaml.UnmarshalStrict(lifecycleText, &out); err != nil {
		return nil, fmt.Errorf("reading the table of removed API versions: %w", err)
	}
	return out, nil
})

// addRemovals completes the retired versions of a kind of the CRD catalog with those that the table lists.
func addRemovals(k *validators.Kind, gk schema.GroupKind) error {
	table, err := lifecycle()
	if err != nil {
		return err
	}
	for _, r := range table {
		if r.Group != gk.Group || r.Kind != "" && r.Kind != gk.Kind {
			continue
		}
		for _, v := range r.Versions {
			if !slices.Contains(k.Served, v) {
				k.Retired[v] = "since " + r.Since
			}
		}
	}
	return nil
}

// removedKinds are the kinds that a release of Kubernetes has dropped altogether.
func removedKinds(minor int, origin string) (map[schema.GroupKind]*validators.Kind, error) {
	table, err := lifecycle()
	if err != nil {
		return nil, err
	}
	out := map[schema.GroupKind]*validators.Kind{}
	for _, r := range table {
		if r.Kubernetes == 0 || r.Kubernetes > minor {
			continue
		}
		k := &validators.Kind{Origin: origin, Installed: true, BuiltIn: true, Retired: map[string]string{}}
		for _, v := range r.Versions {
			k.Retired[v] = "since " + r.Since
		}
		out[schema.GroupKind{Group: r.Group, Kind: r.Kind}] = k
	}
	return out, nil
}
