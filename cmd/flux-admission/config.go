package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/check"
	"github.com/flux-admission/flux-admission/internal/suggest"
)

const (
	// configFile is the name of the file with the settings of a tree.
	configFile = ".flux-admission.yaml"
	// noConfig is the flag that ignores it.
	noConfig = "no-config"
	// maxConfig bounds the file, in bytes.
	maxConfig = 1 << 20
)

// Keys of the file are names of flags of check. Those of onlyFlags are not: the tree under test decides neither which files are written nor which
// logins are used. The values of fileKeys are paths relative to the file, those of pairKeys too, behind NAME=.
var (
	onlyFlags = []string{"help", noConfig, "report", "write-baseline", "registry-config", "chart-cache"}
	fileKeys  = []string{"charts", "crds", "vars-file", "policy", "baseline"}
	pairKeys  = []string{"source"}
)

// addConfigFlag adds the flag of a command that calls applyConfig.
func addConfigFlag(c *cobra.Command) {
	c.Flags().Bool(noConfig, false, "ignore "+configFile+" of the tree, as CI should for the change of a stranger (default false)")
}

// applyConfig sets the flags that the command line does not have from the configuration file of the tree at a path, and
// names the file on standard error.
func applyConfig(c *cobra.Command, path string) error {
	if off, err := c.Flags().GetBool(noConfig); err != nil || off {
		return err
	}
	file, err := findConfig(path)
	if err != nil || file == "" {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return err
	}
	if len(data) > maxConfig {
		return fmt.Errorf("%s is larger than %d bytes", file, maxConfig)
	}
	if err := setFlags(c, file, data); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.ErrOrStderr(), "flux-admission: using the settings of %s\n", file)
	return err
}

// findConfig returns the configuration file of the tree at a path: the nearest one in its directory and those above, up to the root of the Git
// repository. Outside of a repository, only the directory itself counts. It is empty if there is none.
func findConfig(path string) (string, error) {
	if path == check.StandardInput {
		path = "."
	}
	dir, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir) // check reports a path that does not exist
	}
	var above []string
	for d := dir; ; d = filepath.Dir(d) {
		above = append(above, d)
		if _, err := os.Lstat(filepath.Join(d, ".git")); err == nil {
			break
		}
		if d == filepath.Dir(d) {
			above = above[:1]
			break
		}
	}
	for _, d := range above {
		file := filepath.Join(d, configFile)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file, nil
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

// setFlags sets the flags of a command that the command line does not have from the text of a configuration file. It
// accepts the flags of check in every command.
func setFlags(c *cobra.Command, file string, data []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if doc.Kind == 0 {
		return nil // an empty file
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: must be a map of flags of check to their values", file, root.Line)
	}
	keys := newCheck().Flags()
	first := map[string]int{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		at := fmt.Sprintf("%s:%d: %s", file, key.Line, key.Value)
		if line, twice := first[key.Value]; twice {
			return fmt.Errorf("%s: duplicate key, first defined at line %d", at, line)
		}
		first[key.Value] = key.Line
		if err := setFlag(c, keys, filepath.Dir(file), key.Value, value); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

// configKeys returns the keys of the file among the flags of check.
func configKeys(flags *pflag.FlagSet) []string {
	var out []string
	flags.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(onlyFlags, f.Name) {
			out = append(out, f.Name)
		}
	})
	return out
}

// setFlag sets a flag of a command, unless the command line has it. Known are the flags of check.
func setFlag(c *cobra.Command, known *pflag.FlagSet, dir, name string, value *yaml.Node) error {
	if keys := configKeys(known); !slices.Contains(keys, name) {
		switch {
		case slices.Contains(onlyFlags, name):
			return errors.New("can be set on the command line only")
		default:
			text := "no such key; the keys are flags of check"
			if near := suggest.Nearest(name, keys); near != "" {
				text += "; did you mean " + near + "?"
			}
			return errors.New(text)
		}
	}
	items := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		if kind := known.Lookup(name).Value.Type(); kind != "stringArray" && kind != "stringSlice" {
			return errors.New("must be one value, not a list")
		}
		items = value.Content
	}
	flag := c.Flags().Lookup(name)
	if flag == nil || flag.Changed {
		return nil
	}
	for _, item := range items {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			return fmt.Errorf("line %d: must be a value or a list of values", item.Line)
		}
		if err := flag.Value.Set(inDir(dir, name, item.Value)); err != nil {
			return fmt.Errorf("line %d: %w", item.Line, err)
		}
	}
	return nil
}

// inDir returns the value of a key with its path relative to the directory of the file.
func inDir(dir, key, value string) string {
	prefix := ""
	if slices.Contains(pairKeys, key) {
		if name, path, ok := strings.Cut(value, "="); ok {
			prefix, value = name+"=", path
		}
	} else if !slices.Contains(fileKeys, key) {
		return value
	}
	if !filepath.IsAbs(value) {
		value = filepath.Join(dir, value)
	}
	return prefix + value
}
