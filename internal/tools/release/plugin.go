package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fluxcd/flux2/v2/pkg/plugin"
	"sigs.k8s.io/yaml"
)

const (
	program    = "flux-admission"
	repository = "https://github.com/flux-admission/flux-admission"
)

// systems and architectures are what a release has archives for.
var (
	systems       = []string{"darwin", "linux", "windows"}
	architectures = []string{"amd64", "arm64"}
)

var (
	versionPattern  = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-.+)?$`)
	checksumPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// archiveName is the name of the archive for a platform, as Flux's plugin catalog expects it.
func archiveName(version, system, arch string) string {
	extension := "tar.gz"
	if system == "windows" {
		extension = "zip"
	}
	return fmt.Sprintf("%s_%s_%s_%s.%s", program, version, system, arch, extension)
}

// checksumsName is the name of the file with the checksums of a release.
func checksumsName(version string) string {
	return fmt.Sprintf("%s_%s_checksums.txt", program, version)
}

// writePlugin writes the manifest by which `flux plugin install admission` finds a release, for the catalog of Flux's CLI plugins
// (github.com/fluxcd/plugins). The manifest needs the checksums of what is released, so it is written from them and not kept in Git.
func writePlugin(version, checksums, to string) error {
	data, err := os.ReadFile(checksums)
	if err != nil {
		return fmt.Errorf("reading the checksums: %w", err)
	}
	m, err := newManifest(version, data)
	if err != nil {
		return fmt.Errorf("%s: %w", checksums, err)
	}
	text, err := yaml.Marshal(m)
	if err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	return os.WriteFile(filepath.Clean(to), text, 0o644) //nolint:gosec // it is published
}

// readChecksums returns the SHA-256 sums in the output of sha256sum by file name.
func readChecksums(text string) (map[string]string, error) {
	sums := map[string]string{}
	for number, line := range strings.Split(strings.TrimSpace(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) != 2 || !checksumPattern.MatchString(fields[0]) {
			return nil, fmt.Errorf("line %d is not a SHA-256 sum and the name of a file", number+1)
		}
		// sha256sum marks files that it read as binary.
		sums[strings.TrimPrefix(fields[1], "*")] = fields[0]
	}
	return sums, nil
}

// newManifest returns the manifest of one release from the text of its checksums. A platform without an archive is left out, and it is an error
// when none has one.
func newManifest(version string, checksums []byte) (*plugin.Manifest, error) {
	if !versionPattern.MatchString(version) {
		return nil, fmt.Errorf("version %q is not like 0.1.0, without a v", version)
	}
	sums, err := readChecksums(string(checksums))
	if err != nil {
		return nil, err
	}
	r := plugin.Version{Version: version}
	for _, system := range systems {
		for _, arch := range architectures {
			name := archiveName(version, system, arch)
			if sum, ok := sums[name]; ok {
				url := fmt.Sprintf("%s/releases/download/v%s/%s", repository, version, name)
				r.Platforms = append(r.Platforms, plugin.Platform{OS: system, Arch: arch, URL: url, Checksum: "sha256:" + sum})
			}
		}
	}
	if len(r.Platforms) == 0 {
		return nil, errors.New("no file is called " + program + "_" + version + "_OS_ARCH.tar.gz or .zip")
	}
	return &plugin.Manifest{
		APIVersion: plugin.APIVersion, Kind: plugin.PluginKind, Name: strings.TrimPrefix(program, "flux-"),
		Description: "Check a Git tree with the rules of the admission webhook", Homepage: repository, Source: repository, Bin: program,
		Versions: []plugin.Version{r},
	}, nil
}
