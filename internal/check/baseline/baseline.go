// Package baseline suppresses the existing findings of a repository, so that check reports new ones only.
package baseline

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/flux-admission/flux-admission/internal/report"
)

// formatVersion is the version of the file's format.
const formatVersion = 1

// maxBytes limits the size of a baseline file.
const maxBytes = 32 << 20

// header is the comment at the start of the file.
const header = `# Existing findings of this repository. flux-admission check --baseline suppresses them and reports all others.
# A finding is identified by its rule, object, field and key, not by its line. Remove an entry when it is fixed.
`

// Baseline is a set of findings.
type Baseline struct {
	Version  int     `yaml:"version"`
	Findings []Entry `yaml:"findings"`
}

// Entry is one finding, or several that differ in their position only.
type Entry struct {
	Rule string `yaml:"rule"`
	// Group, Kind, Namespace and Name identify the object. The group is empty for the core group, the namespace for a cluster-scoped object.
	Group     string `yaml:"group,omitempty"`
	Kind      string `yaml:"kind"`
	Namespace string `yaml:"namespace,omitempty"`
	Name      string `yaml:"name"`
	// Cluster is set in a tree with several clusters. Without it, the entry applies to every cluster.
	Cluster string `yaml:"cluster,omitempty"`
	// Path is the field; empty for the object itself.
	Path string `yaml:"path,omitempty"`
	// Key is the rule's identifier of the problem.
	Key string `yaml:"key"`
	// Count is the number of findings; 0 means 1.
	Count int `yaml:"count,omitempty"`
	// Reason documents why the finding is accepted.
	Reason string `yaml:"reason,omitempty"`
	// Expires is the day (2026-12-01, in UTC) or time (RFC 3339) from which on the entry suppresses nothing; empty for never.
	Expires string `yaml:"expires,omitempty"`
}

// expired reports whether the entry suppresses nothing any more. Parse has validated Expires.
func (e *Entry) expired(now time.Time) bool {
	at, err := expiryOf(e.Expires)
	return err == nil && e.Expires != "" && !now.Before(at)
}

func expiryOf(text string) (time.Time, error) {
	if at, err := time.Parse(time.DateOnly, text); err == nil {
		return at, nil
	}
	return time.Parse(time.RFC3339, text)
}

func (e *Entry) identity() report.Identity {
	return report.Identity{Rule: e.Rule, Group: e.Group, Kind: e.Kind, Namespace: e.Namespace, Name: e.Name, Path: e.Path, Key: e.Key, Cluster: e.Cluster}
}

// anyCluster returns the identity in an entry for every cluster.
func anyCluster(id report.Identity) report.Identity {
	id.Cluster = ""
	return id
}

// String returns the rule, object and field of the entry.
func (e *Entry) String() string {
	name := e.Name
	if e.Namespace != "" {
		name = e.Namespace + "/" + name
	}
	text := fmt.Sprintf("%s: %s %s", e.Rule, e.Kind, name)
	if e.Path != "" {
		text += " " + e.Path
	}
	return text
}

// Of returns the sorted baseline of the findings of a report that are not suppressed. It keeps the reasons and expiries of the entries of old,
// which may be nil.
func Of(r *report.Report, old *Baseline) *Baseline {
	b := &Baseline{Version: formatVersion, Findings: []Entry{}}
	at := map[report.Identity]int{}
	kept := map[report.Identity]Entry{}
	if old != nil {
		for i := range old.Findings {
			kept[old.Findings[i].identity()] = old.Findings[i]
		}
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Suppressed != nil && f.Suppressed.By != report.ByBaseline {
			continue
		}
		id := f.Identity()
		if len(r.Clusters) < 2 {
			id = anyCluster(id)
		}
		if n, ok := at[id]; ok {
			b.Findings[n].Count = max(1, b.Findings[n].Count) + 1
			continue
		}
		at[id] = len(b.Findings)
		was, known := kept[id]
		if !known {
			was = kept[anyCluster(id)]
		}
		b.Findings = append(b.Findings, Entry{
			Rule: id.Rule, Group: id.Group, Kind: id.Kind, Namespace: id.Namespace, Name: id.Name, Path: id.Path, Key: id.Key, Cluster: id.Cluster,
			Reason: was.Reason, Expires: was.Expires,
		})
	}
	slices.SortFunc(b.Findings, func(x, y Entry) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name), cmp.Compare(x.Group, y.Group),
			cmp.Compare(x.Rule, y.Rule), cmp.Compare(x.Path, y.Path), cmp.Compare(x.Key, y.Key), cmp.Compare(x.Cluster, y.Cluster))
	})
	return b
}

// Write writes the baseline as YAML.
func (b *Baseline) Write(w io.Writer) error {
	if _, err := io.WriteString(w, header); err != nil {
		return fmt.Errorf("writing the baseline: %w", err)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(b), enc.Close()); err != nil {
		return fmt.Errorf("writing the baseline: %w", err)
	}
	return nil
}

// Parse parses a baseline file, YAML or JSON. Source is the name of the file in errors.
func Parse(source string, data []byte) (*Baseline, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%s: baseline is too large; the limit is %d MiB", source, maxBytes>>20)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	b := &Baseline{}
	if err := dec.Decode(b); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: file is empty; write a baseline with --write-baseline", source)
		}
		return nil, fmt.Errorf("%s: invalid baseline: %s", source, invalidText(err))
	}
	if b.Version != formatVersion {
		return nil, fmt.Errorf("%s: version %d is not supported; must be %d", source, b.Version, formatVersion)
	}
	seen := map[report.Identity]int{}
	for i := range b.Findings {
		e := &b.Findings[i]
		for _, f := range []struct{ name, value string }{{"rule", e.Rule}, {"kind", e.Kind}, {"name", e.Name}, {"key", e.Key}} {
			if f.value == "" {
				return nil, fmt.Errorf("%s: findings[%d].%s: is not set", source, i, f.name)
			}
		}
		if e.Count < 0 {
			return nil, fmt.Errorf("%s: findings[%d].count: must not be negative", source, i)
		}
		if _, err := expiryOf(e.Expires); err != nil && e.Expires != "" {
			return nil, fmt.Errorf("%s: findings[%d].expires: %q is not a day or a time; write 2026-12-01 or 2026-12-01T00:00:00Z", source, i, e.Expires)
		}
		if first, duplicate := seen[e.identity()]; duplicate {
			return nil, fmt.Errorf("%s: findings[%d]: duplicates findings[%d]; use one entry with a count", source, i, first)
		}
		seen[e.identity()] = i
	}
	return b, nil
}

// unknownField matches the error of the YAML decoder for a field that an entry does not have, which names a type of this program.
var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// invalidText returns an error of the YAML decoder in one line.
func invalidText(err error) string {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n")
	lines := strings.Split(unknownField.ReplaceAllString(text, "unknown field $1"), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}

// Apply suppresses the findings in the baseline, in the given order and at most the count of each entry. Entries that have expired suppress
// nothing. It returns the stale entries, those with fewer findings than their count, with the remaining count, and the expired ones with a finding.
// Findings that are suppressed already do not count.
func (b *Baseline) Apply(findings []report.Finding, now time.Time) (stale, expired []Entry) {
	left := map[report.Identity]int{}
	entries := map[report.Identity]*Entry{}
	for i := range b.Findings {
		e := &b.Findings[i]
		left[e.identity()], entries[e.identity()] = max(1, e.Count), e
	}
	for i := range findings {
		f := &findings[i]
		id := f.Identity()
		if left[id] == 0 {
			id = anyCluster(id)
		}
		if f.Suppressed != nil || left[id] == 0 {
			continue
		}
		left[id]--
		if e := entries[id]; !e.expired(now) {
			f.Suppressed = &report.Suppression{By: report.ByBaseline, Reason: e.Reason}
		}
	}
	for _, e := range b.Findings {
		n := left[e.identity()]
		if e.expired(now) && n < max(1, e.Count) {
			expired = append(expired, e)
		}
		if n == 0 {
			continue
		}
		if e.Count > 0 {
			e.Count = n
		}
		stale = append(stale, e)
	}
	return stale, expired
}
