package chartsource_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/chartsource"
	"github.com/flux-admission/flux-admission/internal/lookup"
	"github.com/flux-admission/flux-admission/test/sharedinputs"
	"github.com/flux-admission/flux-admission/validators"
	"github.com/flux-admission/flux-admission/validators/helmrelease"
)

// release is the HelmRelease in the trees of the recorded repository.
const release = "kubernetes/apps/airflow/airflow/app/helmrelease.yaml"

// replayed returns the HelmRelease of a tree in a Git bundle.
func replayed(t testing.TB, bundle, tree string) map[string]any {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{
		{"clone", "--quiet", "--no-checkout", bundle, dir},
		{"-C", dir, "show", tree + ":" + release},
	} {
		out, err := exec.CommandContext(t.Context(), "git", args...).Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		if args[0] == "-C" {
			return object(t, string(out)).Object
		}
	}
	return nil
}

func TestResolver_AirflowRegression(t *testing.T) {
	shared := sharedinputs.Dir(t)
	suite, err := validators.NewSuite(helmrelease.ValuesSchema)
	if err != nil {
		t.Fatal(err)
	}
	m := lookup.NewMemory()
	m.Complete = false // the tree lacks Secrets of the cluster
	m.Charts = resolver(t, chartsource.Options{Dirs: []string{filepath.Join(shared, "charts", "airflow-1.16.0")}})
	for name, tc := range map[string]struct {
		tree string
		want []string
	}{
		"rejects the values that Helm rejected in a cluster": {"t-28185b2", []string{"/data/metadataConnection", "'existingSecret'", "'existingSecretKey'"}},
		"accepts the values that replaced them":              {"t-a8a58c1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := object(t, "{}")
			o.Object = replayed(t, filepath.Join(shared, "replay", "trees.bundle"), tc.tree)
			res := suite.Evaluate(t.Context(), validators.Request{Operation: validators.Create, Object: o}, m)
			var text strings.Builder
			for _, f := range res.Findings {
				fmt.Fprintf(&text, "%s: %s\n", f.Path, f.Message)
			}
			if len(res.Errors) > 0 || (len(res.Findings) > 0) != (tc.want != nil) {
				t.Errorf("findings:\n%serrors: %v\nskipped: %v", text.String(), res.Errors, res.Skipped)
			}
			for _, w := range tc.want {
				if !strings.Contains(text.String(), w) {
					t.Errorf("the findings do not contain %q:\n%s", w, text.String())
				}
			}
		})
	}
}
