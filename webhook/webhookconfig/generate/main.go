// Command generate writes both webhook configurations into the directory in its argument.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/flux-admission/flux-admission/webhook/webhookconfig"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: generate DIRECTORY, got %d arguments", len(args))
	}
	files, err := webhookconfig.Files()
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(args[0], name), data, 0o644); err != nil { //nolint:gosec // anyone may read manifests
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}
