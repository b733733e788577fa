package inventory

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"sigs.k8s.io/yaml"
)

// Format is an output format.
type Format string

// The formats.
const (
	Table Format = "table"
	Wide  Format = "wide"
	YAML  Format = "yaml"
	JSON  Format = "json"
	Name  Format = "name"
)

// Formats returns all formats.
func Formats() []Format { return []Format{Table, Wide, YAML, JSON, Name} }

// Write writes the inventory.
func (i *Inventory) Write(w io.Writer, format Format) error {
	switch format {
	case JSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(i)
	case YAML:
		text, err := yaml.Marshal(i)
		if err != nil {
			return fmt.Errorf("writing as YAML: %w", err)
		}
		_, err = w.Write(text)
		return err
	case Table, Wide, Name:
	}
	written := false
	for _, t := range i.tables() {
		if len(t.rows) == 0 {
			continue
		}
		if written && format != Name {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		written = true
		if err := t.write(w, format, i.Clusters > 1); err != nil {
			return err
		}
	}
	return nil
}

// table is one list. The first cell of each row is the cluster, the others are those of the columns.
type table struct {
	columns []string
	// narrow is how many of the columns the format Table has.
	narrow int
	rows   [][]string
	names  []string
}

func (t *table) add(name string, cells ...string) {
	t.names, t.rows = append(t.names, name), append(t.rows, cells)
}

func (t *table) write(to io.Writer, format Format, clusters bool) error {
	if format == Name {
		_, err := fmt.Fprintln(to, strings.Join(t.names, "\n"))
		return err
	}
	n := len(t.columns)
	if format == Table {
		n = t.narrow
	}
	w := tabwriter.NewWriter(to, 0, 0, 3, ' ', 0)
	line := func(cluster string, cells []string) {
		if clusters {
			cells = append([]string{cluster}, cells[:n]...)
		} else {
			cells = cells[:n]
		}
		for i, cell := range cells {
			// Names of a hostile tree must not move the cursor.
			if cells[i] = strings.Map(printable, cell); cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	line("CLUSTER", append([]string{}, t.columns...))
	for _, row := range t.rows {
		line(row[0], append([]string{}, row[1:]...))
	}
	return w.Flush()
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '?'
	}
	return r
}

func (i *Inventory) tables() []*table {
	ks := &table{narrow: 7, columns: []string{"NAMESPACE", "KUSTOMIZATION", "PATH", "SOURCE", "OBJECTS", "STATE", "SUSPENDED", "PRUNE", "TARGET", "DEPENDS ON", "FILE"}}
	for _, k := range i.Kustomizations {
		ks.add("Kustomization/"+k.Namespace+"/"+k.Name, k.Cluster, k.Namespace, k.Name, k.Path, k.Source, strconv.Itoa(k.Objects), k.State,
			strconv.FormatBool(k.Suspended), strconv.FormatBool(k.Prune), k.TargetNamespace, strings.Join(k.DependsOn, ","), k.File)
	}
	hr := &table{narrow: 6, columns: []string{"NAMESPACE", "HELMRELEASE", "CHART", "VERSION", "SOURCE", "SUSPENDED", "TARGET", "DEPENDS ON", "KUSTOMIZATION", "FILE"}}
	for _, r := range i.HelmReleases {
		hr.add("HelmRelease/"+r.Namespace+"/"+r.Name, r.Cluster, r.Namespace, r.Name, r.Chart, r.Version, r.Source, strconv.FormatBool(r.Suspended),
			r.Target, strings.Join(r.DependsOn, ","), r.Kustomization, r.File)
	}
	sources := &table{narrow: 6, columns: []string{"NAMESPACE", "SOURCE", "URL", "REFERENCE", "USERS", "SUSPENDED", "FILE"}}
	for _, s := range i.Sources {
		sources.add(s.Kind+"/"+s.Namespace+"/"+s.Name, s.Cluster, s.Namespace, s.Kind+"/"+s.Name, s.URL, s.Reference, strconv.Itoa(s.Users),
			strconv.FormatBool(s.Suspended), s.File)
	}
	images := &table{narrow: 2, columns: []string{"IMAGE", "USERS", "USED BY"}}
	for _, m := range i.Images {
		images.add(m.Image, m.Cluster, m.Image, strconv.Itoa(len(m.UsedBy)), strings.Join(m.UsedBy, ", "))
	}
	return []*table{ks, hr, sources, images}
}
