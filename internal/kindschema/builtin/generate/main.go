// Command generate writes the built-in stock of CustomResourceDefinitions into a directory.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/flux-admission/flux-admission/internal/kindschema/builtin/pack"
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
		fmt.Fprintln(os.Stderr, "generating the built-in CustomResourceDefinitions:", err)
		cancel()
		os.Exit(1)
	}
}
