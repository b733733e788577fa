package pack

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// controllerGen makes the definitions of a module that ships its Go types only.
const controllerGen = "sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0"

// goVersion is what the go line of modules that ask for a newer Go is lowered to: their types are only read.
const goVersion = "1.26.0"

// module is a downloaded module.
type module struct{ path, version, zip, date string }

// download has the go command put a module into its cache. The checksum database vouches for what is there.
func download(ctx context.Context, path, version string) (module, error) {
	out, err := runGo(ctx, os.TempDir(), "mod", "download", "-json", path+"@"+version)
	var m struct{ Zip, Info, Error string }
	if jsonErr := json.Unmarshal(out, &m); jsonErr != nil {
		return module{}, errors.Join(err, jsonErr)
	}
	// A module that asks for a newer Go is an error, and downloaded all the same.
	if m.Zip == "" || m.Info == "" {
		return module{}, fmt.Errorf("downloading %s@%s: %s", path, version, m.Error)
	}
	info, err := os.ReadFile(m.Info)
	if err != nil {
		return module{}, err
	}
	var released struct{ Time time.Time }
	if err := json.Unmarshal(info, &released); err != nil {
		return module{}, fmt.Errorf("%s: %w", m.Info, err)
	}
	return module{path: path, version: version, zip: m.Zip, date: released.Time.UTC().Format(time.DateOnly)}, nil
}

// tooNew is what the go command states of a dependency that asks for a newer Go.
var tooNew = regexp.MustCompile(`([a-zA-Z0-9./_-]+)@(v[^\s:]+) requires go >= `)

// goLine is the line of a go.mod with the language version, and the one with the toolchain.
var goLine = regexp.MustCompile(`(?m)^(go|toolchain) .*$`)

// generate returns the definitions that controller-gen makes of a module's types.
func generate(ctx context.Context, s source, m module) (_ map[string][]byte, err error) {
	dir, err := os.MkdirTemp("", "crds-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var imports strings.Builder
	for _, t := range s.types {
		fmt.Fprintf(&imports, "import _ %q\n", s.module+"/"+t)
	}
	if err := os.WriteFile(filepath.Join(dir, "types.go"), []byte("package types\n\n"+imports.String()), 0o644); err != nil {
		return nil, err
	}
	var mod strings.Builder
	fmt.Fprintf(&mod, "module types\n\ngo %s\n\nrequire %s %s\n", goVersion, s.module, s.moduleVersion)
	lowered := map[string]bool{}
	for missing := &m; missing != nil; {
		replacement := filepath.Join(dir, fmt.Sprintf("src%d", len(lowered)))
		if err := missing.extract(replacement); err != nil {
			return nil, err
		}
		lowered[missing.path] = true
		fmt.Fprintf(&mod, "replace %s => %s\n", missing.path, replacement)
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod.String()), 0o644); err != nil {
			return nil, err
		}
		out, err := runGo(ctx, dir, "mod", "tidy")
		missing = nil
		if err == nil {
			break
		}
		newer := tooNew.FindStringSubmatch(string(out) + err.Error())
		if newer == nil || lowered[newer[1]] {
			return nil, err
		}
		dependency, err := download(ctx, newer[1], newer[2])
		if err != nil {
			return nil, err
		}
		missing = &dependency
	}
	args := []string{"run", controllerGen, "crd:crdVersions=v1"}
	for _, t := range s.types {
		args = append(args, "paths="+s.module+"/"+t)
	}
	target := filepath.Join(dir, "crds")
	if _, err := runGo(ctx, dir, append(args, "output:crd:dir="+target)...); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(target, "*.yaml"))
	if err != nil {
		return nil, err
	}
	texts := map[string][]byte{}
	for _, name := range names {
		if texts[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// extract writes the module's files to a directory, with the go line of its go.mod lowered.
func (m module) extract(dir string) error {
	z, err := zip.OpenReader(m.zip)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		name := strings.TrimPrefix(f.Name, m.path+"@"+m.version+"/")
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%s: the file %q is not below the module", m.path, f.Name)
		}
		data, err := readZipped(f)
		if err != nil {
			return err
		}
		if name == "go.mod" {
			data = bytes.TrimSpace(goLine.ReplaceAll(data, nil))
			data = append(data, "\n\ngo "+goVersion+"\n"...)
		}
		target := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// runGo runs the go command outside of the product's module and returns what it printed.
func runGo(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local", "GOFLAGS=-mod=mod", "GOWORK=off")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}
