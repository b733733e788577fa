// Command privileges fails if the webhook server was refused a call in a run of the tests, or if the manifests grant it
// a permission that no test used.
//
//	go run ./test/privileges/cmd/privileges DIR
//
// DIR is where the tests wrote the calls: make privileges.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/flux-admission/flux-admission/test/env"
	"github.com/flux-admission/flux-admission/test/privileges"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "privileges:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New("want one argument, the directory with the calls of the tests")
	}
	calls, files, err := privileges.Read(args[0])
	if err != nil {
		return err
	}
	if files == 0 {
		return fmt.Errorf("%s has no calls; run make test e2e first", args[0])
	}
	root, err := env.Root()
	if err != nil {
		return err
	}
	grants, err := privileges.Grants(os.DirFS(filepath.Join(root, "manifests")), "flux-admission", env.Namespace)
	if err != nil {
		return err
	}
	forbidden, unused := privileges.Compare(calls, grants)
	for _, c := range forbidden {
		fmt.Fprintf(stdout, "forbidden: %s\n", c)
	}
	for _, g := range unused {
		fmt.Fprintf(stdout, "granted, but used by no test: %s\n", g)
	}
	if len(forbidden)+len(unused) > 0 {
		return errors.New("the permissions in the manifests are not those that the webhook server needs")
	}
	fmt.Fprintf(stdout, "%d permissions, each used; no call was refused; %d control planes\n", len(grants), files)
	return nil
}
