package assets

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// CRDSet names the CRDs of one project.
type CRDSet string

const (
	FluxSource      CRDSet = "flux-source"
	FluxKustomize   CRDSet = "flux-kustomize"
	FluxHelm        CRDSet = "flux-helm"
	CloudNativePG   CRDSet = "cloudnative-pg"
	VolumeSnapshots CRDSet = "volume-snapshots"
	ExternalSecrets CRDSet = "external-secrets"
)

// DefaultCRDs are the kinds that the product has rules for, and Flux's sources.
func DefaultCRDs() []CRDSet { return []CRDSet{FluxSource, FluxKustomize, FluxHelm, CloudNativePG} }

// crdSource is where a project's CRDs lie: a module and a directory in it.
type crdSource struct{ module, dir string }

func crdSources() map[CRDSet]crdSource {
	return map[CRDSet]crdSource{
		FluxSource:      {"github.com/fluxcd/source-controller", "config/crd/bases"},
		FluxKustomize:   {"github.com/fluxcd/kustomize-controller", "config/crd/bases"},
		FluxHelm:        {"github.com/fluxcd/helm-controller", "config/crd/bases"},
		CloudNativePG:   {"github.com/cloudnative-pg/cloudnative-pg", "config/crd/bases"},
		VolumeSnapshots: {"github.com/kubernetes-csi/external-snapshotter/client/v8", "config/crd"},
		ExternalSecrets: {"github.com/external-secrets/external-secrets", "config/crds/bases"},
	}
}

// crdModule is the directory under modulesDir that pins the CRDs' modules.
const crdModule = "crds"

// downloadTimeout bounds the download of the CRDs' modules.
const downloadTimeout = 5 * time.Minute

// CRDs returns the directories that hold the real CRDs of the named projects,
// in the order of the names, in the module cache. Modules that are not there
// yet are downloaded. Each must have the checksum that the bench's go.sum
// records.
func CRDs(ctx context.Context, sets ...CRDSet) ([]string, error) {
	root, err := treeRoot()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	dir := filepath.Join(root, modulesDir, crdModule)
	pins, err := readPins(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("finding the CRDs: %w", err)
	}
	sources := crdSources()
	args := []string{"mod", "download", "-json"}
	for _, set := range sets {
		source, known := sources[set]
		if !known {
			return nil, fmt.Errorf("no CRDs are named %q: use one of %s", set, strings.Join(setNames(), ", "))
		}
		version, pinned := pins.versions[source.module]
		if !pinned {
			return nil, fmt.Errorf("the CRDs %q: %s is not required in %s", set, source.module, filepath.Join(dir, "go.mod"))
		}
		if arg := source.module + "@" + version; !slices.Contains(args, arg) {
			args = append(args, arg)
		}
	}
	if len(sets) == 0 {
		return nil, nil
	}
	output, err := runGo(ctx, dir, nil, args...)
	if err != nil {
		return nil, fmt.Errorf("downloading the modules that ship the CRDs: %w", err)
	}
	downloads, err := readDownloads(output, pins)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, set := range sets {
		source := sources[set]
		dir := filepath.Join(downloads[source.module], source.dir)
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("the CRDs %q: %w", set, err)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

func setNames() []string {
	var names []string
	for set := range crdSources() {
		names = append(names, string(set))
	}
	slices.Sort(names)
	return names
}

// pins are the versions and checksums that the CRDs' module records.
type pins struct {
	versions map[string]string
	sums     map[string]bool // lines "module version checksum"
}

func readPins(ctx context.Context, dir string) (pins, error) {
	output, err := runGo(ctx, dir, nil, "mod", "edit", "-json")
	if err != nil {
		return pins{}, err
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal([]byte(output), &mod); err != nil {
		return pins{}, fmt.Errorf("%s: %w", filepath.Join(dir, "go.mod"), err)
	}
	p := pins{versions: map[string]string{}, sums: map[string]bool{}}
	for _, require := range mod.Require {
		p.versions[require.Path] = require.Version
	}
	sums, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return pins{}, err
	}
	for line := range strings.Lines(string(sums)) {
		p.sums[strings.TrimSpace(line)] = true
	}
	return p, nil
}

// readDownloads reads what `go mod download -json` printed: module → directory.
// `go mod download module@version` checks go.sum only where it has an entry, so
// the entry is demanded here.
func readDownloads(output string, p pins) (map[string]string, error) {
	dirs := map[string]string{}
	decoder := json.NewDecoder(strings.NewReader(output))
	for {
		var module struct{ Path, Version, Dir, Sum string }
		err := decoder.Decode(&module)
		if err == io.EOF {
			return dirs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading what go mod download answered: %w", err)
		}
		if line := module.Path + " " + module.Version + " " + module.Sum; !p.sums[line] {
			return nil, fmt.Errorf("%s %s has the checksum %s, which %s/%s/go.sum does not record", module.Path, module.Version, module.Sum, modulesDir, crdModule)
		}
		dirs[module.Path] = module.Dir
	}
}
