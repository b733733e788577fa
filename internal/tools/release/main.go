// Command release does what goreleaser does not: it verifies a release, writes the manifest of Flux's CLI plugin, and pushes the manifests as
// an OCI artifact for Flux.
//
//	go run -C internal/tools/release . plugin VERSION CHECKSUMS FILE      writes the manifest of the plugin
//	go run -C internal/tools/release . artifact REFERENCE REVISION       pushes manifests to a registry, and prints the reference with its digest
//	go run -C internal/tools/release . verify DIST CHARTS                verifies what goreleaser wrote into DIST, and the chart in CHARTS
//
// Paths are relative to the root of the repository.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

// root is the product's directory, seen from this module's.
const root = "../../.."

// timeout is for a registry at the other end of a slow network.
const timeout = 15 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch {
	case command == "plugin" && len(args) == 3:
		return writePlugin(args[0], filepath.Join(root, args[1]), filepath.Join(root, args[2]))
	case command == "artifact" && len(args) == 2:
		reference, err := pushArtifact(ctx, args[0], args[1], root)
		if err == nil {
			_, err = fmt.Fprintln(out, reference)
		}
		return err
	case command == "verify" && len(args) == 2:
		return verify(ctx, filepath.Join(root, args[0]), filepath.Join(root, args[1]), out)
	}
	return errors.New("usage: release plugin VERSION CHECKSUMS FILE | artifact REFERENCE REVISION | verify DIST CHARTS")
}
