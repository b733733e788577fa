// Command wordlint reports words that this project does not use, in the tracked files of a Git repository and in their
// names. words.yaml has the list, with what to write instead.
//
//	wordlint [--counts N] [--report-only] [DIRECTORY]
//
// It exits with code 1 if it finds a word, and with 2 if it cannot run.
package main

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed words.yaml
var wordList []byte

func main() {
	counts := flag.Int("counts", 0, "print the number of uses of the `N` most frequent words in place of the uses")
	reportOnly := flag.Bool("report-only", false, "exit with code 0 even if words are found")
	flag.Parse()
	root := "."
	if flag.NArg() > 0 {
		root = flag.Arg(0)
	}
	found, err := run(context.Background(), os.Stdout, root, *counts)
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "wordlint: %v\n", err)
		os.Exit(2)
	case found > 0 && !*reportOnly:
		os.Exit(1)
	}
}

// run lints the repository at root, writes uses or counts to w and returns the number of uses.
func run(ctx context.Context, w io.Writer, root string, counts int) (int, error) {
	list, err := parse(wordList)
	if err != nil {
		return 0, fmt.Errorf("reading words.yaml: %w", err)
	}
	files, err := tracked(ctx, root)
	if err != nil {
		return 0, err
	}
	var uses []use
	for _, name := range files {
		if list.skips(name) || !scanned(name) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted in the work tree
		}
		if err != nil {
			return 0, err
		}
		uses = append(uses, list.lint(name, text)...)
	}
	if counts > 0 {
		writeCounts(w, list, uses, counts)
		return len(uses), nil
	}
	for _, u := range uses {
		fmt.Fprintln(w, u)
	}
	if len(uses) > 0 {
		fmt.Fprintf(w, "%d uses of words in internal/tools/wordlint/words.yaml\n", len(uses))
	}
	return len(uses), nil
}

// tracked returns the files that Git tracks under root, relative to it.
func tracked(ctx context.Context, root string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the tracked files of %s: %w: %s", root, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 }), nil
}

// scanned reports whether a file holds text of this project.
func scanned(name string) bool {
	switch path.Ext(name) {
	case ".txtar": // the cases of this project
		return true
	case ".go", ".md", ".yaml", ".yml", ".tmpl", ".sh":
		// What lies under testdata is mostly what others write: repositories, charts, schemas.
		return !strings.Contains("/"+name, "/testdata/")
	}
	base := path.Base(name)
	return base == "Makefile" || base == "Dockerfile" || name == ".ci/run"
}

// A list is the parsed words.yaml.
type list struct {
	Skip  []string `json:"skip"`
	Words []word   `json:"words"`
}

// A word is one entry of the list.
type word struct {
	Find     string   `json:"find"`
	Use      string   `json:"use"`
	Allow    []string `json:"allow"`
	Files    []string `json:"files"`
	NotFiles []string `json:"notFiles"`

	find  *regexp.Regexp
	allow []*regexp.Regexp
}

// A use is one place where a word is used. Line 0 is the name of the file.
type use struct {
	file string
	line int
	text string
	word *word
}

// String returns the use as FILE:LINE: TEXT.
func (u use) String() string {
	if u.line == 0 {
		return fmt.Sprintf("%s: name of the file: %q is not a word of this project; use: %s", u.file, u.text, u.word.Use)
	}
	return fmt.Sprintf("%s:%d: %q is not a word of this project; use: %s", u.file, u.line, u.text, u.word.Use)
}

func parse(text []byte) (*list, error) {
	l := &list{}
	if err := yaml.UnmarshalStrict(text, l); err != nil {
		return nil, err
	}
	for i := range l.Words {
		w := &l.Words[i]
		if w.Find == "" || w.Use == "" {
			return nil, fmt.Errorf("word %d has no find or no use", i+1)
		}
		var err error
		if w.find, err = regexp.Compile(`(?i)\b(?:` + w.Find + `)\b`); err != nil {
			return nil, err
		}
		for _, a := range w.Allow {
			allowed, err := regexp.Compile(a)
			if err != nil {
				return nil, err
			}
			w.allow = append(w.allow, allowed)
		}
	}
	return l, nil
}

func (l *list) skips(name string) bool {
	return matchesAny(l.Skip, name)
}

// lint returns the uses in a file and in its name, one for each word and line.
func (l *list) lint(name string, text []byte) []use {
	var out []use
	for number, line := range strings.Split(name+"\n"+string(text), "\n") {
		for i := range l.Words {
			w := &l.Words[i]
			if len(w.Files) > 0 && !matchesAny(w.Files, name) || matchesAny(w.NotFiles, name) {
				continue
			}
			searched := line
			for _, a := range w.allow {
				searched = a.ReplaceAllString(searched, " ")
			}
			if found := w.find.FindString(split(searched)); found != "" {
				out = append(out, use{file: name, line: number, text: found, word: w})
			}
		}
	}
	return out
}

var (
	// camel is where a word begins inside a name: fooBar, HTTPServer.
	camel = regexp.MustCompile(`([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])`)
	// separators connect the words of a name.
	separators = strings.NewReplacer("_", " ", "/", " / ")
)

// split separates the words of identifiers and paths.
func split(line string) string {
	return separators.Replace(camel.ReplaceAllString(line, "$1$3 $2$4"))
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if strings.HasSuffix(pattern, "/") {
			return strings.HasPrefix(name, pattern)
		}
		matched := name
		if !strings.Contains(pattern, "/") {
			matched = path.Base(name)
		}
		ok, err := path.Match(pattern, matched)
		return err == nil && ok
	})
}

// writeCounts writes the number of uses of the most frequent words.
func writeCounts(w io.Writer, l *list, uses []use, most int) {
	number := map[*word]int{}
	for _, u := range uses {
		number[u.word]++
	}
	words := make([]*word, 0, len(l.Words))
	for i := range l.Words {
		words = append(words, &l.Words[i])
	}
	slices.SortStableFunc(words, func(a, b *word) int { return cmp.Compare(number[b], number[a]) })
	for _, word := range words[:min(most, len(words))] {
		fmt.Fprintf(w, "%6d  %s\n", number[word], word.Find)
	}
	fmt.Fprintf(w, "%6d  all words\n", len(uses))
}
