package kustomization

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	generator "github.com/fluxcd/pkg/kustomize"
	securefs "github.com/fluxcd/pkg/kustomize/filesys"
	fluxssa "github.com/fluxcd/pkg/ssa/utils"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/flux-admission/flux-admission/internal/kustomization/build"
	"github.com/flux-admission/flux-admission/test/sharedinputs"
	"github.com/flux-admission/flux-admission/validators"
)

// fluxBuild builds a Kustomization with Flux's own library, as kustomize-controller does, without writing to the
// tree. Variables come from the client; nil leaves out the substitution.
func fluxBuild(ctx context.Context, root string, k *Kustomization, vars client.Client) ([]*unstructured.Unstructured, error) {
	dir := filepath.Join(root, k.Path)
	manifest, file, _, err := generator.NewGenerator(root, *k.Object.Unstructured).GenerateManifest(dir)
	if err != nil {
		return nil, err
	}
	disk, err := securefs.MakeFsOnDiskSecure(root)
	if err != nil {
		return nil, err
	}
	var fs filesys.FileSystem = securefs.MakeFsInMemory(disk)
	if err := fs.WriteFile(file, manifest); err != nil {
		return nil, err
	}
	m, err := generator.Build(fs, dir)
	if err != nil {
		return nil, err
	}
	for _, res := range m.Resources() {
		if res.GetName() == "" || res.GetKind() == "" || res.GetApiVersion() == "" {
			return nil, fmt.Errorf("no object: %s", res)
		}
		if vars == nil || k.Spec.PostBuild == nil {
			continue
		}
		out, err := generator.SubstituteVariables(ctx, vars, *k.Object.Unstructured, res, generator.SubstituteWithStrict(true),
			generator.SubstituteWithAlways(k.Spec.PostBuild.SubstituteStrategy == "Always"))
		if err != nil {
			return nil, err
		}
		if out != nil {
			if _, err := m.Replace(res); err != nil {
				return nil, err
			}
		}
	}
	data, err := m.AsYaml()
	if err != nil {
		return nil, err
	}
	objects, err := fluxssa.ReadObjects(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if c := k.Spec.CommonMetadata; c != nil {
		fluxssa.SetCommonMetadata(objects, c.Labels, c.Annotations)
	}
	return objects, nil
}

// built returns the objects of a Kustomization in the form of fluxBuild, before or after substitution.
func built(k *Kustomization, substituted bool) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	if substituted {
		for _, o := range k.Objects {
			out = append(out, o.Unstructured)
		}
		return out
	}
	for _, o := range k.output.Objects {
		out = append(out, &unstructured.Unstructured{Object: apiruntime.DeepCopyJSON(o.Content)})
	}
	if c := k.Spec.CommonMetadata; c != nil {
		fluxssa.SetCommonMetadata(out, c.Labels, c.Annotations)
	}
	return out
}

// differences compares the objects of two builds, in order.
func differences(t *testing.T, k *Kustomization, ours, flux []*unstructured.Unstructured) {
	t.Helper()
	if len(ours) != len(flux) {
		t.Errorf("%s: %d objects, Flux builds %d", k.Key, len(ours), len(flux))
		return
	}
	for i := range ours {
		a, b := ours[i].Object, flux[i].Object
		if k.Spec.Decryption != nil {
			b = withoutSOPS(b)
			a = withoutSOPS(a)
		}
		if diff := cmp.Diff(b, a); diff != "" {
			t.Errorf("%s: object %d differs (-Flux +this package):\n%s", k.Key, i, diff)
		}
	}
}

func withoutSOPS(o map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range o {
		if k != "sops" {
			out[k] = v
		}
	}
	return out
}

// variablesClient returns a client with the ConfigMaps and Secrets of a cluster.
func variablesClient(t *testing.T, c *Cluster) client.Client {
	t.Helper()
	scheme := apiruntime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	b := fake.NewClientBuilder().WithScheme(scheme)
	seen := map[validators.ObjectRef]bool{}
	for _, o := range c.Objects {
		gvk := o.GroupVersionKind()
		if gvk.Group != "" || (gvk.Kind != "ConfigMap" && gvk.Kind != "Secret") || o.Encrypted || seen[refOf(o)] {
			continue
		}
		seen[refOf(o)] = true
		copied := o.DeepCopy()
		if err := apiruntime.DefaultUnstructuredConverter.FromUnstructured(copied.Object, &corev1.ConfigMap{}); gvk.Kind == "ConfigMap" && err != nil {
			continue // a number in its data: the API server would not take it
		}
		if text, ok := copied.Object["stringData"].(map[string]any); ok { // the API server does this
			data := map[string][]byte{}
			for key, value := range text {
				data[key] = []byte(value.(string))
			}
			s := &corev1.Secret{Data: data}
			s.Name, s.Namespace = o.GetName(), o.GetNamespace()
			b = b.WithObjects(s)
			continue
		}
		b = b.WithObjects(copied)
	}
	return b.Build()
}

// sameAsFlux compares every Kustomization of a built tree with what Flux's library builds from the directory that root
// returns. Already has the digests of those that were compared before.
func sameAsFlux(t *testing.T, root func(*Kustomization) string, res *Result, already map[[32]byte]bool) (compared, failed, remote int) {
	t.Helper()
	for _, c := range res.Clusters {
		vars := variablesClient(t, c)
		for _, k := range c.Kustomizations {
			if slices.ContainsFunc(k.Problems, func(p *validators.Problem) bool {
				return p.Kind == validators.ProblemRemoteBase || p.Kind == validators.ProblemRemoteContent
			}) {
				remote++
				continue
			}
			if k.artifact == nil {
				continue
			}
			if sum := inputs(k); already[sum] {
				continue
			} else if already != nil {
				already[sum] = true
			}
			known := len(k.MissingVariables) == 0
			if k.variables != nil {
				for _, name := range k.variables.Names() {
					v, _ := k.variables.Get(name)
					known = known && !v.Unresolved
				}
			}
			with := vars
			if !known {
				with = nil
			}
			flux, err := fluxBuild(t.Context(), root(k), k, with)
			// Without the values of variables, nothing is substituted in Flux's build, so that it cannot miss one.
			expected := slices.ContainsFunc(k.Problems, func(p *validators.Problem) bool {
				return fails(p) && (known || p.Kind != validators.ProblemVariableUnset)
			})
			if (err != nil) != expected {
				t.Errorf("%s: Flux returns %v, this package reports %v", k.Key, err, k.Problems)
				continue
			}
			if err != nil {
				failed++
				continue
			}
			compared++
			differences(t, k, built(k, known), flux)
		}
	}
	return compared, failed, remote
}

// inputs is a digest of all that the build of a Kustomization depends on: its object and every file that was read.
func inputs(k *Kustomization) [32]byte {
	h := sha256.New()
	enc := json.NewEncoder(h)
	_ = enc.Encode(k.Object.Object)
	if k.output != nil {
		for _, p := range slices.Sorted(maps.Keys(k.output.Read)) {
			data, err := k.artifact.File(p).Read()
			_ = enc.Encode([]any{p, data, fmt.Sprint(err)})
		}
		for _, p := range k.Problems {
			_ = enc.Encode(p.Message)
		}
	}
	return [32]byte(h.Sum(nil))
}

// replay clones the recorded trees; it skips the test where they are missing.
func replay(t testing.TB) (repo string, tags []string) {
	t.Helper()
	repo = filepath.Join(t.TempDir(), "replay")
	git(t, "", "clone", "-q", filepath.Join(sharedinputs.Dir(t), "replay", "trees.bundle"), repo)
	tags = strings.Fields(git(t, repo, "tag"))
	if len(tags) == 0 {
		t.Fatal("the replay bundle has no tags")
	}
	return repo, tags
}

func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestReplay_SameAsFlux(t *testing.T) {
	repo, tags := replay(t)
	if testing.Short() {
		tags = []string{"t-28185b2", "t-24a5c6c", "t-c6c9b1f", "t-1951f73"}
	}
	already := map[[32]byte]bool{}
	var compared, failed, remote int
	for _, tag := range tags {
		git(t, repo, "checkout", "-q", tag)
		res, err := Build(t.Context(), Options{Root: repo, Workers: 2})
		if err != nil {
			t.Fatalf("%s: %v", tag, err)
		}
		c, f, r := sameAsFlux(t, func(*Kustomization) string { return repo }, res, already)
		compared, failed, remote = compared+c, failed+f, remote+r
		if t.Failed() {
			t.Fatalf("in tree %s", tag)
		}
	}
	t.Logf("%d trees: %d Kustomizations equal, %d fail in both, %d with remote content left out", len(tags), compared, failed, remote)
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

// TestBuild_SameAsFluxInTrees compares the trees in the directories that FLUX_ADMISSION_TREES names, separated by commas.
func TestBuild_SameAsFluxInTrees(t *testing.T) {
	trees := os.Getenv("FLUX_ADMISSION_TREES")
	if trees == "" {
		t.Skip("FLUX_ADMISSION_TREES names no directories")
	}
	for dir := range strings.SplitSeq(trees, ",") {
		// kustomize refuses a directory with characters such as + in its name, which that of artifacts has from the test.
		name := regexp.MustCompile(`[^\w.-]`).ReplaceAllString(filepath.Base(dir), "_")
		t.Run(name, func(t *testing.T) {
			res, err := Build(t.Context(), Options{Root: dir})
			if err != nil {
				t.Fatal(err)
			}
			compared, failed, remote := sameAsFlux(t, artifacts(t, dir), res, map[[32]byte]bool{})
			t.Logf("%d Kustomizations equal, %d fail in both, %d with remote content left out", compared, failed, remote)
			if compared+failed+remote == 0 {
				t.Error("nothing was compared")
			}
		})
	}
}

// TestReplay_Mistakes: mistakes that the author of the replay trees repaired are reported before the repair, and not
// after it.
func TestReplay_Mistakes(t *testing.T) {
	repo, _ := replay(t)
	for name, tc := range map[string]struct{ before, after, want string }{
		"R008": {"t-1951f73", "t-d6651c3", "kubernetes/apps/tailscale/kustomization.yaml:8:5: the build fails: kustomization.yaml lists ./tailscale-operator/ks.yaml, but kubernetes/apps/tailscale/tailscale-operator/ks.yaml is not in the tree"},
		"R027": {"t-c6c9b1f", "t-e9298f6", "kubernetes/apps/database/kustomization.yaml:6:5: the build fails: Secret default/cluster-secrets is defined twice, in kubernetes/components/common/cluster-secrets.sops.yaml"},
		"R066": {"t-567904c", "t-21fe90e", "kubernetes/apps/airflow/airflow/app/kustomization.yaml:10:5: the build fails: kustomization.yaml lists ./airflow-health-service-account.yaml, but kubernetes/apps/airflow/airflow/app/airflow-health-service-account.yaml is not in the tree"},
		"R083": {"t-a8a58c1", "t-b2383ef", "data-platform/nessie: targetNamespace kubernetes/apps/data-platform/ks.yaml:7:3; field kubernetes/apps/data-platform/nessie/ks.yaml:7:3"},
		"R084": {"t-24a5c6c", "t-3be5f29", "kubernetes/apps/airflow/airflow/ks.yaml:22:3: the build fails: duplicate key \"targetNamespace\"; first defined at line 7"},
		"R093": {"t-cc2f76e", "t-fdd274d", "kubernetes/apps/data-platform/kustomization.yaml:22:5: the build fails: kustomization.yaml lists ./spark-applications/ks.yaml, but kubernetes/apps/data-platform/spark-applications/ks.yaml is not in the tree"},
		"R094": {"t-8dcfc29", "t-a599d7b", "unapplied kubernetes/apps/spark-applications/ks.yaml:1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mistakes(t, repo, tc.before); !slices.Contains(got, tc.want) {
				t.Errorf("not reported before the repair: %s\nreported: %s", tc.want, strings.Join(got, "\n"))
			}
			if got := mistakes(t, repo, tc.after); slices.Contains(got, tc.want) {
				t.Errorf("still reported after the repair: %s", tc.want)
			}
		})
	}
}

func mistakes(t *testing.T, repo, tag string) []string {
	t.Helper()
	git(t, repo, "checkout", "-q", tag)
	res, err := Build(t.Context(), Options{Root: repo})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range res.Unapplied {
		out = append(out, "unapplied "+o.Position.String())
	}
	for _, k := range res.Clusters[0].Kustomizations {
		for _, p := range k.Problems {
			out = append(out, p.String())
		}
		if d := k.Object.DeclaredNamespace(); d != "" && d != k.Key.Namespace {
			out = append(out, k.Key.String()+": "+at(k.Object.Locate(validators.NewPath("metadata", "namespace"))))
		}
	}
	return out
}

// TestReplay_Positions: every field of every object of a real tree is located on a line with its key, in its file or
// in the patch that wrote it.
func TestReplay_Positions(t *testing.T) {
	repo, _ := replay(t)
	git(t, repo, "checkout", "-q", "t-28185b2")
	res, err := Build(t.Context(), Options{Root: repo})
	if err != nil {
		t.Fatal(err)
	}
	fields := 0
	for _, o := range res.Clusters[0].Objects {
		eachPath(o.Object, nil, func(p validators.Path) {
			l := o.Locate(p)
			if len(p) == 0 || p[len(p)-1].IsIndex() || (l.Role != RoleField && l.Role != build.RolePatch) {
				return
			}
			if _, whole := p.Lookup(map[string]any(o.Object)).(map[string]any); whole {
				return // a map that a patch or a label adds is located at its nearest parent
			}
			fields++
			data, err := os.ReadFile(filepath.Join(repo, l.File))
			if err != nil || l.Line == 0 {
				t.Errorf("%s %s is located at %s: %v", o, p, l.Position, err)
				return
			}
			if line := strings.Split(string(data), "\n")[l.Line-1]; !strings.Contains(line, p[len(p)-1].Key) {
				t.Errorf("%s %s is located at %s: %s", o, p, l.Position, line)
			}
		})
	}
	if fields < 3000 {
		t.Errorf("only %d fields were located", fields)
	}
}
