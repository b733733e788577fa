package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/fluxcd/flux2/v2/pkg/plugin"
	"github.com/fluxcd/pkg/oci"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// maxFile bounds what is read of one file of an archive.
const maxFile = 512 << 20

// release is what goreleaser wrote.
type release struct {
	version string
	dist    string // the directory with archives, SBOMs and checksums
	charts  string // the directory with the packaged chart
	sums    map[string]string
	out     io.Writer
}

// verify checks a release file by file, and reports each step to out.
func verify(ctx context.Context, dist, charts string, out io.Writer) error {
	r := &release{dist: dist, charts: charts, out: out}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"metadata", r.readVersion},
		{"checksums", r.verifyChecksums},
		{"archives", r.verifyArchives},
		{"the binary", r.runBinary},
		{"plugin manifest", r.verifyPlugin},
		{"chart", r.verifyChart},
		{"OCI artifact", r.verifyArtifact},
		{"build context of the image", r.verifyImage},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func (r *release) report(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

// readVersion reads the version that goreleaser chose.
func (r *release) readVersion(context.Context) error {
	data, err := os.ReadFile(filepath.Join(r.dist, "metadata.json"))
	if err != nil {
		return err
	}
	var metadata struct{ Version, Tag, Commit string }
	if err := json.Unmarshal(data, &metadata); err != nil {
		return err
	}
	if !versionPattern.MatchString(metadata.Version) {
		return fmt.Errorf("the version is %q", metadata.Version)
	}
	r.version = metadata.Version
	r.report("version %s of commit %s", metadata.Version, metadata.Commit)
	return nil
}

// find returns the path of a file of the release.
func (r *release) find(name string) string {
	if strings.HasSuffix(name, ".tgz") {
		return filepath.Join(r.charts, name)
	}
	return filepath.Join(r.dist, name)
}

// verifyChecksums compares each file with its checksum, and requires a checksum of each file that is published.
func (r *release) verifyChecksums(context.Context) error {
	data, err := os.ReadFile(filepath.Join(r.dist, checksumsName(r.version)))
	if err != nil {
		return err
	}
	if r.sums, err = readChecksums(string(data)); err != nil {
		return err
	}
	wanted := []string{fmt.Sprintf("%s-%s.tgz", program, r.version)}
	for _, system := range systems {
		for _, arch := range architectures {
			wanted = append(wanted, archiveName(r.version, system, arch), sbomName(r.version, system, arch))
		}
	}
	for name, want := range r.sums {
		i := slices.Index(wanted, name)
		if i < 0 {
			return fmt.Errorf("%s is not expected", name)
		}
		wanted = slices.Delete(wanted, i, i+1)
		file, err := os.Open(r.find(name))
		if err != nil {
			return err
		}
		hash := sha256.New()
		size, err := io.Copy(hash, file)
		if err := errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if got := hex.EncodeToString(hash.Sum(nil)); got != want {
			return fmt.Errorf("%s has the checksum %s, want %s", name, got, want)
		}
		r.report("  %-60s %6.1f MB", name, float64(size)/1e6)
	}
	if len(wanted) > 0 {
		return fmt.Errorf("these have no checksum: %s", strings.Join(wanted, ", "))
	}
	r.report("%d checksums verified", len(r.sums))
	return nil
}

func sbomName(version, system, arch string) string {
	return fmt.Sprintf("%s_%s_%s_%s.cdx.json", program, version, system, arch)
}

// readArchive returns the files of a .tar.gz or .zip by name.
func readArchive(file string) (map[string][]byte, error) {
	out := map[string][]byte{}
	read := func(name string, from io.Reader) error {
		data, err := io.ReadAll(io.LimitReader(from, maxFile))
		out[name] = data
		return err
	}
	if strings.HasSuffix(file, ".zip") {
		archive, err := zip.OpenReader(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = archive.Close() }()
		for _, f := range archive.File {
			content, err := f.Open()
			if err != nil {
				return nil, err
			}
			if err := errors.Join(read(f.Name, content), content.Close()); err != nil {
				return nil, fmt.Errorf("%s: %w", f.Name, err)
			}
		}
		return out, nil
	}
	compressed, err := os.Open(filepath.Clean(file))
	if err != nil {
		return nil, err
	}
	defer func() { _ = compressed.Close() }()
	plain, err := gzip.NewReader(compressed)
	if err != nil {
		return nil, err
	}
	archive := tar.NewReader(plain)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if err := read(header.Name, archive); err != nil {
			return nil, fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

// binaryName is the name of the binary in an archive, where Flux's CLI looks for it.
func binaryName(system string) string {
	if system == "windows" {
		return program + ".exe"
	}
	return program
}

// verifyArchives checks that each archive has a static binary of its platform, the license and the man pages, and that the SBOM names each module
// that is linked into the binary.
func (r *release) verifyArchives(context.Context) error {
	for _, system := range systems {
		for _, arch := range architectures {
			name := archiveName(r.version, system, arch)
			files, err := readArchive(r.find(name))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for _, want := range []string{binaryName(system), "LICENSE", "man/flux-admission-check.1"} {
				if len(files[want]) == 0 {
					return fmt.Errorf("%s has no %s", name, want)
				}
			}
			info, err := buildinfo.Read(bytes.NewReader(files[binaryName(system)]))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			settings := map[string]string{}
			for _, s := range info.Settings {
				settings[s.Key] = s.Value
			}
			for key, want := range map[string]string{"GOOS": system, "GOARCH": arch, "CGO_ENABLED": "0", "-trimpath": "true"} {
				if settings[key] != want {
					return fmt.Errorf("%s was built with %s=%q, want %q", name, key, settings[key], want)
				}
			}
			if err := r.verifySBOM(sbomName(r.version, system, arch), info); err != nil {
				return err
			}
			r.report("  %s/%s: static, %d modules, all in its SBOM", system, arch, len(info.Deps))
		}
	}
	return nil
}

// verifySBOM checks that a CycloneDX document names each module of a binary with its version.
func (r *release) verifySBOM(name string, info *buildinfo.BuildInfo) error {
	data, err := os.ReadFile(r.find(name))
	if err != nil {
		return err
	}
	var document struct {
		BOMFormat  string `json:"bomFormat"`
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if document.BOMFormat != "CycloneDX" {
		return fmt.Errorf("%s has the format %q", name, document.BOMFormat)
	}
	listed := map[string]bool{}
	for _, c := range document.Components {
		listed[c.Name+"@"+c.Version] = true
	}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		if !listed[d.Path+"@"+d.Version] {
			return fmt.Errorf("%s lacks %s %s", name, d.Path, d.Version)
		}
	}
	return nil
}

// runBinary runs the binary for this machine, as somebody who unpacked the archive: its version, and check on a tree with and without a mistake.
func (r *release) runBinary(ctx context.Context) error {
	files, err := readArchive(r.find(archiveName(r.version, runtime.GOOS, runtime.GOARCH)))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, binaryName(runtime.GOOS))
	if err := os.WriteFile(binary, files[binaryName(runtime.GOOS)], 0o700); err != nil { //nolint:gosec // it is run
		return err
	}
	tree := filepath.Join(dir, "tree")
	if err := os.CopyFS(tree, os.DirFS("testdata/tree")); err != nil {
		return err
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"version"}, 0, "v" + r.version + "\n"},
		{[]string{"check", "--no-progress", tree}, 0, "No findings"},
		{[]string{"check", "--no-progress", "--only", "KS001", "--deny", "KS001", tree}, 0, "No findings"},
	} {
		if err := expect(ctx, binary, c.args, c.code, c.want); err != nil {
			return err
		}
	}
	apps := filepath.Join(tree, "clusters", "prod", "apps.yaml")
	text, err := os.ReadFile(apps) //nolint:gosec // a copy of testdata
	if err != nil {
		return err
	}
	wrong := bytes.ReplaceAll(text, []byte("path: ./apps"), []byte("path: ./aps"))
	if err := os.WriteFile(apps, wrong, 0o600); err != nil {
		return err
	}
	if err := expect(ctx, binary, []string{"check", "--no-progress", tree}, 1, "the path ./aps does not exist"); err != nil {
		return err
	}
	r.report("the binary of %s/%s prints its version, and check passes a tree and denies a mistake in it", runtime.GOOS, runtime.GOARCH)
	return nil
}

// expect runs a program, and compares its exit code and a part of its output.
func expect(ctx context.Context, program string, args []string, code int, want string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) {
		return fmt.Errorf("%s has the exit code %d, want %d with %q in\n%s", strings.Join(args, " "), got, code, want, out)
	}
	return nil
}

// verifyPlugin writes the manifest of the plugin, reads it with the types of Flux's CLI, and finds each binary where the CLI does: the checksum of
// the archive, and in it a file with the name of the program.
func (r *release) verifyPlugin(context.Context) error {
	file := filepath.Join(r.dist, "admission.yaml")
	if err := writePlugin(r.version, filepath.Join(r.dist, checksumsName(r.version)), file); err != nil {
		return err
	}
	data, err := os.ReadFile(file) //nolint:gosec // a file in the directory of the release
	if err != nil {
		return err
	}
	var m plugin.Manifest
	if err := yaml.UnmarshalStrict(data, &m); err != nil {
		return err
	}
	if len(m.Versions) != 1 || len(m.Versions[0].Platforms) != len(systems)*len(architectures) {
		return fmt.Errorf("it has not one version of %d platforms:\n%s", len(systems)*len(architectures), data)
	}
	for _, p := range m.Versions[0].Platforms {
		name := path.Base(p.URL)
		if p.Checksum != "sha256:"+r.sums[name] {
			return fmt.Errorf("%s has the checksum %s, want that of the release", name, p.Checksum)
		}
	}
	r.report("plugin manifest for %d platforms: %s", len(m.Versions[0].Platforms), filepath.Base(file))
	return nil
}

// verifyChart checks the packaged chart, and that chart, base and release name one version. A dry run has a version of its own.
func (r *release) verifyChart(context.Context) error {
	name := fmt.Sprintf("%s-%s.tgz", program, r.version)
	files, err := readArchive(r.find(name))
	if err != nil {
		return err
	}
	var chart struct{ Name, Version, AppVersion string }
	if err := yaml.Unmarshal(files[program+"/Chart.yaml"], &chart); err != nil {
		return err
	}
	if chart.Name != program || chart.Version != r.version || chart.AppVersion != "v"+r.version {
		return fmt.Errorf("%s is %s %s with appVersion %s", name, chart.Name, chart.Version, chart.AppVersion)
	}
	for _, want := range []string{"values.schema.json", "crds/admissionpolicies.yaml", "files/policy.yaml", "templates/deployment.yaml"} {
		if len(files[program+"/"+want]) == 0 {
			return fmt.Errorf("%s has no %s", name, want)
		}
	}
	inTree, err := os.ReadFile(filepath.Join(root, "manifests", "chart", "Chart.yaml"))
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(inTree, &chart); err != nil {
		return err
	}
	deployment, err := os.ReadFile(filepath.Join(root, "manifests", "base", "deployment.yaml"))
	if err != nil {
		return err
	}
	if image := "image: ghcr.io/flux-admission/flux-admission:" + chart.AppVersion; !strings.Contains(string(deployment), image) {
		return fmt.Errorf("manifests/base/deployment.yaml lacks %q: it and Chart.yaml have different versions", image)
	}
	if !strings.Contains(r.version, "dryrun") && chart.Version != r.version {
		return fmt.Errorf("manifests/chart/Chart.yaml has the version %s, the tag %s", chart.Version, r.version)
	}
	r.report("chart %s, %d files", name, len(files))
	return nil
}

// verifyArtifact pushes the manifests to a registry in this process, pulls them as Flux does, and builds every overlay of what was pulled.
func (r *release) verifyArtifact(ctx context.Context) error {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	reference := strings.TrimPrefix(server.URL, "http://") + "/manifests/" + program + ":" + r.version
	if _, err := pushArtifact(ctx, reference, "v"+r.version, root); err != nil {
		return err
	}
	pulled, err := oci.NewClient(oci.DefaultOptions()).Pull(ctx, reference, dir)
	if err != nil {
		return fmt.Errorf("pulling it again: %w", err)
	}
	overlays, err := filepath.Glob(filepath.Join(dir, "overlays", "*"))
	if err != nil || len(overlays) == 0 {
		return fmt.Errorf("it has no overlays: %w", err)
	}
	for _, overlay := range overlays {
		built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), overlay)
		if err != nil {
			return fmt.Errorf("building overlays/%s: %w", filepath.Base(overlay), err)
		}
		r.report("  overlays/%s: %d objects", filepath.Base(overlay), built.Size())
	}
	r.report("OCI artifact pushed, pulled and built: revision %s, %s", pulled.Revision, pulled.Digest[strings.LastIndex(pulled.Digest, "@")+1:])
	return nil
}

// verifyImage compiles the program from what .dockerignore leaves of the tree, which is all that the Dockerfile sees. Bases are not fetched: that needs
// a container engine.
func (r *release) verifyImage(ctx context.Context) error {
	file, err := os.Open(filepath.Join(root, ".dockerignore"))
	if err != nil {
		return err
	}
	patterns, err := ignorefile.ReadAll(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	list := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	names, err := list.Output()
	if err != nil {
		return fmt.Errorf("listing the files of the tree: %w", err)
	}
	count := 0
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		excluded, err := matcher.MatchesOrParentMatches(name)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(filepath.Join(root, name)) //nolint:gosec // a file of the tree
		if excluded || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(target, data, 0o600); err != nil {
			return err
		}
		count++
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=v"+r.version, "-o", filepath.Join(dir, program), "./cmd/"+program)
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling what .dockerignore leaves: %w\n%s", err, out)
	}
	if err := expect(ctx, filepath.Join(dir, program), []string{"version"}, 0, "v"+r.version+"\n"); err != nil {
		return err
	}
	r.report("the image's build context of %d files compiles", count)
	return nil
}
