// Command helmtemplate renders a chart by Helm's own installation, as a dry run that knows of no cluster, and lists the objects that it would create: the
// reference that the project's rendering is compared with. It is a module of its own, since nothing else needs all of Helm.
//
//	helmtemplate [-name NAME] [-namespace NAMESPACE] [-skip-crds] [-json] CHART KUBERNETES-VERSION [VALUES-FILE] > internal/helmchart/testdata/helm/NAME.txt
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	release "helm.sh/helm/v4/pkg/release/v1"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "helmtemplate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("helmtemplate", flag.ContinueOnError)
	name := flags.String("name", "web", "name of the release")
	namespace := flags.String("namespace", "apps", "namespace of the release")
	skipCRDs := flags.Bool("skip-crds", false, "leave out the directory crds")
	skipSchema := flags.Bool("skip-schema", false, "do not validate the values")
	asJSON := flags.Bool("json", false, "write the objects, one a line, in Helm's order")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if args = flags.Args(); len(args) < 2 || len(args) > 3 {
		return errors.New("usage: helmtemplate [flags] CHART KUBERNETES-VERSION [VALUES-FILE]")
	}
	chart, err := loader.Load(args[0])
	if err != nil {
		return fmt.Errorf("loading the chart: %w", err)
	}
	kube, err := common.ParseKubeVersion(args[1])
	if err != nil {
		return fmt.Errorf("the version of Kubernetes: %w", err)
	}
	values := map[string]any{}
	if len(args) == 3 {
		data, err := os.ReadFile(args[2])
		if err != nil {
			return fmt.Errorf("reading the values: %w", err)
		}
		if err := yaml.Unmarshal(data, &values); err != nil {
			return fmt.Errorf("the values in %s: %w", args[2], err)
		}
	}
	install := action.NewInstall(&action.Configuration{})
	install.DryRunStrategy = action.DryRunClient
	install.ReleaseName, install.Namespace = *name, *namespace
	install.KubeVersion = kube
	install.SkipSchemaValidation = *skipSchema
	install.IncludeCRDs, install.SkipCRDs = !*skipCRDs, *skipCRDs
	out, err := install.RunWithContext(ctx, chart, values)
	if err != nil {
		return fmt.Errorf("rendering: %w", err)
	}
	made, ok := out.(*release.Release)
	if !ok {
		return fmt.Errorf("Helm answers with a %T", out) //nolint:staticcheck // Helm is a name
	}
	text := made.Manifest
	for _, h := range made.Hooks {
		if !slices.Equal(h.Events, []release.HookEvent{release.HookTest}) {
			text += "\n---\n# Source: " + h.Path + "\n" + h.Manifest
		}
	}
	var lines []string
	for _, document := range releaseutil.SplitManifests(text) {
		line, err := describe(document, *asJSON)
		if err != nil {
			return err
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	if !*asJSON {
		slices.Sort(lines)
	}
	fmt.Println(strings.Join(lines, "\n"))
	return nil
}

// describe names an object, its template and the sum of its content, or returns the object as JSON.
func describe(document string, asJSON bool) (string, error) {
	data, err := yaml.YAMLToJSON([]byte(document))
	if err != nil {
		return "", fmt.Errorf("what Helm renders: %w", err)
	}
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
		return "", nil
	}
	var o map[string]any
	if err := json.Unmarshal(data, &o); err != nil {
		return "", fmt.Errorf("what Helm renders: %w", err)
	}
	canonical, err := json.Marshal(o)
	if err != nil {
		return "", fmt.Errorf("writing an object: %w", err)
	}
	if asJSON {
		return string(canonical), nil
	}
	source := ""
	for l := range strings.Lines(document) {
		if rest, ok := strings.CutPrefix(l, "# Source: "); ok {
			source = strings.TrimSpace(rest)
		}
	}
	metadata, _ := o["metadata"].(map[string]any)
	return fmt.Sprintf("%s %v %v %x", source, o["kind"], metadata["name"], sha256.Sum256(canonical)), nil
}
