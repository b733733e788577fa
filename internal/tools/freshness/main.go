// Command freshness compares the definitions of the built-in CRD catalog with the newest releases that the module proxy serves. It is a
// report: it exits with code 0 whatever it finds, and prints "unknown" for what it cannot look up.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
)

// lookupTimeout limits the look-up of one module.
const lookupTimeout = 20 * time.Second

func main() {
	c, err := catalog.New()
	if err == nil {
		err = report(context.Background(), os.Stdout, c.Entries(), newest, time.Now())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "freshness:", err)
	}
}

// report prints a line for the newest packed release of each project and module.
func report(ctx context.Context, out io.Writer, entries []catalog.Entry, newest func(context.Context, string) (string, error), now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROJECT\tRELEASE\tMODULE\tPACKED\tNEWEST\tAGE IN DAYS")
	type key struct{ project, module string }
	last := map[key]catalog.Entry{}
	var order []key
	for _, e := range entries {
		k := key{e.Project, e.Module}
		if _, ok := last[k]; !ok {
			order = append(order, k)
		}
		last[k] = e
	}
	slices.SortFunc(order, func(a, b key) int {
		if a.project != b.project {
			return cmp.Compare(a.project, b.project)
		}
		return cmp.Compare(a.module, b.module)
	})
	for _, k := range order {
		e := last[k]
		version, err := newest(ctx, e.Module)
		if err != nil {
			version = "unknown"
		}
		age := "unknown"
		if day, err := time.Parse(time.DateOnly, e.Date); err == nil {
			age = fmt.Sprint(int(now.Sub(day).Hours() / 24))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.Project, e.Version, e.Module, e.ModuleVersion, version, age)
	}
	return w.Flush()
}

// newest asks the module proxy for the newest release of a module.
func newest(ctx context.Context, module string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-json", module+"@latest")
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local", "GOFLAGS=-mod=mod", "GOWORK=off")
	text, err := cmd.Output()
	var m struct{ Version string }
	if jsonErr := json.Unmarshal(text, &m); jsonErr != nil || m.Version == "" {
		return "", fmt.Errorf("looking %s up: %w", module, err)
	}
	return m.Version, nil
}
