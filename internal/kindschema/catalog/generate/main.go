// Command generate writes the built-in CRD catalog into a directory.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/flux-admission/flux-admission/internal/kindschema/catalog/pack"
)

// timeout covers the download of the modules, some of which are large.
const timeout = 30 * time.Minute

func main() {
	all := flag.Bool("all", false, "read every module again, not only those whose version changed")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: generate [--all] DIR")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := pack.Write(ctx, flag.Arg(0), *all); err != nil {
		fmt.Fprintln(os.Stderr, "generating the CRD catalog:", err)
		cancel()
		os.Exit(1)
	}
}
