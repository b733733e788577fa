// Command generate writes everything that follows from the list of rules and mutators: the AdmissionPolicy CRD with
// their typed settings, its deepcopy code, the RBAC of what they read, the default policy as YAML and as the API server stores it, the files of the Helm chart, a documentation page for
// each, the README's table of rules, and the schemas of server-side apply.
//
//	go run -C internal/tools/generate .            writes the files
//	go run -C internal/tools/generate . --check    names the files that are stale, and exits with code 1
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// root is the product's directory, seen from this module's.
const root = "../../.."

func main() {
	check := flag.Bool("check", false, "name stale files instead of writing them")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// files are generated contents by their path below root.
type files map[string][]byte

func run(check bool) error {
	out := files{}
	for _, generate := range []func(files) error{generateDeepCopy, generateCRD, generateRBAC, generatePolicy, generateDefaulted, generateApply, generateDocs, generateReadme, generateChart} {
		if err := generate(out); err != nil {
			return err
		}
	}
	var stale []error
	for _, path := range slices.Sorted(maps.Keys(out)) {
		target := filepath.Join(root, path)
		have, err := os.ReadFile(target)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if bytes.Equal(have, out[path]) {
			continue
		}
		if check {
			stale = append(stale, fmt.Errorf("%s is stale: run make generate and commit it", path))
			continue
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, out[path], 0o644); err != nil {
			return err
		}
		fmt.Println("wrote", path)
	}
	left, err := leftovers(out)
	if err != nil {
		return err
	}
	for _, path := range left {
		stale = append(stale, fmt.Errorf("%s belongs to no rule or mutator: remove it", path))
	}
	return errors.Join(stale...)
}

// leftovers are the pages of rules that do not exist any more.
func leftovers(out files) ([]string, error) {
	pages, err := filepath.Glob(filepath.Join(root, docsDir, "*.md"))
	if err != nil {
		return nil, err
	}
	var left []string
	for _, p := range pages {
		path := filepath.Join(docsDir, filepath.Base(p))
		if _, ok := out[path]; !ok {
			left = append(left, path)
		}
	}
	return left, nil
}
