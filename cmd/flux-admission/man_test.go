package main

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The generator of man pages is a test, because only tests of package main have access to its commands, and the program
// does not need it.
//
//go:generate go test -count 1 -run ^TestManPages_UpToDate$ . -update-man

var updateMan = flag.Bool("update-man", false, "write the man pages anew")

const manDir = "../../docs/man"

// withHelp returns the root command with the commands that cobra adds when it runs.
func withHelp() *cobra.Command {
	root := newRoot()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// manPages returns the man page of every command by its file name. They have no date, so that they are reproducible.
func manPages(root *cobra.Command) (map[string][]byte, error) {
	pages := map[string][]byte{}
	var add func(c *cobra.Command) error
	add = func(c *cobra.Command) error {
		c.DisableAutoGenTag = true
		name := strings.ReplaceAll(c.CommandPath(), " ", "-")
		var b bytes.Buffer
		noDate := time.Time{}
		header := &doc.GenManHeader{
			Title: strings.ToUpper(name), Section: "1", Date: &noDate, Source: "flux-admission",
			Manual: "flux-admission Manual",
		}
		if err := doc.GenMan(c, header, &b); err != nil {
			return fmt.Errorf("the man page of %s: %w", c.CommandPath(), err)
		}
		pages[name+".1"] = bytes.Replace(b.Bytes(), []byte(noDate.Format("Jan 2006")), nil, 1)
		for _, below := range c.Commands() {
			if !below.IsAvailableCommand() || below.IsAdditionalHelpTopicCommand() {
				continue
			}
			if err := add(below); err != nil {
				return err
			}
		}
		return nil
	}
	return pages, add(root)
}

func TestManPages_UpToDate(t *testing.T) {
	pages, err := manPages(withHelp())
	if err != nil {
		t.Fatal(err)
	}
	there, err := filepath.Glob(filepath.Join(manDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		if _, known := pages[filepath.Base(path)]; known {
			continue
		}
		if !*updateMan {
			t.Errorf("%s is not the page of a command; run make generate and commit the result", path)
		} else if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		path := filepath.Join(manDir, name)
		if *updateMan {
			if err := os.MkdirAll(manDir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, pages[name], 0o644); err != nil {
				t.Error(err)
			}
		}
		have, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(have, pages[name]) {
			t.Errorf("%s is out of date; run make generate and commit the result (%v)", path, err)
		}
	}
}

func TestManPages_Commands(t *testing.T) {
	pages, err := manPages(withHelp())
	if err != nil {
		t.Fatal(err)
	}
	whole := plainMan(pages["flux-admission.1"])
	for _, c := range []string{"serve", "check", "build", "get", "diff", "fix", "rules", "explain", "rotate", "version", "completion"} {
		page := plainMan(pages["flux-admission-"+c+".1"])
		if !strings.Contains(page, "flux-admission "+c) || !strings.Contains(whole, "flux-admission-"+c+"(1)") {
			t.Errorf("%s has no page, or the page of the program does not lead to it:\n%s", c, page)
		}
	}
	check := plainMan(pages["flux-admission-check.1"])
	for _, f := range []string{"--output", "--fail-on", "--charts", "--policy", "--baseline", "--changed-since"} {
		if !strings.Contains(check, f) {
			t.Errorf("the page of check does not name %s:\n%s", f, check)
		}
	}
}

// plainMan removes the markup of a man page.
func plainMan(page []byte) string {
	return strings.NewReplacer(`\-`, "-", `\fB`, "", `\fP`, "", `\fI`, "").Replace(string(page))
}
