// Command fluxplugin writes the manifest by which `flux plugin install admission` finds a release, for the catalog of Flux's CLI plugins
// (github.com/fluxcd/plugins). The manifest needs the checksums of what is released, so it is made from them and not kept in Git.
//
//	go run ./internal/tools/fluxplugin --version 0.1.0 --checksums flux-admission_0.1.0_checksums.txt > admission.yaml
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	bin        = "flux-admission"
	repository = "https://github.com/flux-admission/flux-admission"
)

func main() {
	version := flag.String("version", "", "version of the release without a v, such as 0.1.0")
	checksums := flag.String("checksums", "", "file with a line `SHA256  NAME` for each file of the release, as sha256sum writes it")
	flag.Parse()
	if err := run(*version, *checksums, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fluxplugin:", err)
		os.Exit(1)
	}
}

func run(version, checksums string, to io.Writer) error {
	data, err := os.ReadFile(checksums)
	if err != nil {
		return fmt.Errorf("--checksums: %w", err)
	}
	m, err := newManifest(version, data)
	if err != nil {
		return fmt.Errorf("%s: %w", checksums, err)
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(m); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	if _, err := to.Write(b.Bytes()); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	return nil
}

// manifest is a Plugin of cli.fluxcd.io/v1beta1.
type manifest struct {
	APIVersion  string    `yaml:"apiVersion"`
	Kind        string    `yaml:"kind"`
	Name        string    `yaml:"name"`
	Description string    `yaml:"description"`
	Homepage    string    `yaml:"homepage"`
	Source      string    `yaml:"source"`
	Bin         string    `yaml:"bin"`
	Versions    []release `yaml:"versions"`
}

type release struct {
	Version   string     `yaml:"version"`
	Platforms []platform `yaml:"platforms"`
}

type platform struct {
	OS       string `yaml:"os"`
	Arch     string `yaml:"arch"`
	URL      string `yaml:"url"`
	Checksum string `yaml:"checksum"`
}

var (
	versionPattern  = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-.+)?$`)
	checksumPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// newManifest makes the manifest of one release from the text of its checksums. Archives are called NAME_VERSION_OS_ARCH.tar.gz, or .zip for Windows, as
// the catalog's own updates expect; a platform without one is left out, and it is an error when none has one.
func newManifest(version string, checksums []byte) (*manifest, error) {
	if !versionPattern.MatchString(version) {
		return nil, fmt.Errorf("version %q is not like 0.1.0, without a v", version)
	}
	sums := map[string]string{}
	for number, line := range strings.Split(strings.TrimSpace(string(checksums)), "\n") {
		fields := strings.Fields(line)
		if len(fields) != 2 || !checksumPattern.MatchString(fields[0]) {
			return nil, fmt.Errorf("line %d is not a SHA-256 sum and the name of a file", number+1)
		}
		// sha256sum marks files that it read as binary.
		sums[strings.TrimPrefix(fields[1], "*")] = fields[0]
	}
	r := release{Version: version}
	for _, system := range []string{"darwin", "linux", "windows"} {
		for _, arch := range []string{"amd64", "arm64"} {
			extension := "tar.gz"
			if system == "windows" {
				extension = "zip"
			}
			name := fmt.Sprintf("%s_%s_%s_%s.%s", bin, version, system, arch, extension)
			if sum, ok := sums[name]; ok {
				url := fmt.Sprintf("%s/releases/download/v%s/%s", repository, version, name)
				r.Platforms = append(r.Platforms, platform{OS: system, Arch: arch, URL: url, Checksum: "sha256:" + sum})
			}
		}
	}
	if len(r.Platforms) == 0 {
		return nil, errors.New("no file is called " + bin + "_" + version + "_OS_ARCH.tar.gz or .zip")
	}
	return &manifest{
		APIVersion: "cli.fluxcd.io/v1beta1", Kind: "Plugin", Name: strings.TrimPrefix(bin, "flux-"),
		Description: "Check a Git tree with the rules of the admission webhook", Homepage: repository, Source: repository, Bin: bin,
		Versions: []release{r},
	}, nil
}
