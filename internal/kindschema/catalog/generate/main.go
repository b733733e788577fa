// Command generate writes the built-in CRD catalog into a directory.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/flux-admission/flux-admission/internal/kindschema/catalog/pack"
)

// timeout covers the download of the modules.
const timeout = 5 * time.Minute

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate DIR")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := pack.Write(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generating the CRD catalog:", err)
		cancel()
		os.Exit(1)
	}
}
