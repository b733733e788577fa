package collect_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/flux-admission/flux-admission/internal/delivery"
	"github.com/flux-admission/flux-admission/internal/delivery/collect"
)

// apiServer answers discovery and lists of a few kinds.
type apiServer struct {
	mu sync.Mutex
	// metadataOnly are the paths of lists that were read as metadata.
	metadataOnly []string
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadataList") {
		s.metadataOnly = append(s.metadataOnly, r.URL.Path)
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer := func(status int, v any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	resource := func(name, kind string) metav1.APIResource {
		return metav1.APIResource{Name: name, Kind: kind, Namespaced: true, Verbs: metav1.Verbs{"get", "list"}}
	}
	meta := func(name string) map[string]any {
		return map[string]any{"name": name, "namespace": "apps", "generation": 1}
	}
	switch r.URL.Path {
	case "/api":
		answer(http.StatusOK, metav1.APIVersions{Versions: []string{"v1"}})
	case "/apis":
		var groups metav1.APIGroupList
		for _, gv := range []string{"kustomize.toolkit.fluxcd.io/v1", "metrics.k8s.io/v1beta1", "helm.toolkit.fluxcd.io/v2"} {
			name, _, _ := strings.Cut(gv, "/")
			version := metav1.GroupVersionForDiscovery{GroupVersion: gv, Version: strings.TrimPrefix(gv, name+"/")}
			groups.Groups = append(groups.Groups, metav1.APIGroup{Name: name, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version})
		}
		answer(http.StatusOK, groups)
	case "/api/v1":
		answer(http.StatusOK, metav1.APIResourceList{GroupVersion: "v1", APIResources: []metav1.APIResource{resource("secrets", "Secret"), resource("secrets/status", "Secret")}})
	case "/apis/kustomize.toolkit.fluxcd.io/v1":
		answer(http.StatusOK, metav1.APIResourceList{GroupVersion: "kustomize.toolkit.fluxcd.io/v1", APIResources: []metav1.APIResource{resource("kustomizations", "Kustomization")}})
	case "/apis/helm.toolkit.fluxcd.io/v2":
		answer(http.StatusOK, metav1.APIResourceList{GroupVersion: "helm.toolkit.fluxcd.io/v2", APIResources: []metav1.APIResource{resource("helmreleases", "HelmRelease")}})
	case "/api/v1/secrets":
		answer(http.StatusOK, map[string]any{
			"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": map[string]any{},
			"items": []any{map[string]any{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": meta("values")}},
		})
	case "/apis/kustomize.toolkit.fluxcd.io/v1/kustomizations":
		name, next := "first", "page-2"
		if r.URL.Query().Get("continue") == next {
			name, next = "second", ""
		}
		answer(http.StatusOK, map[string]any{
			"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "KustomizationList", "metadata": map[string]any{"continue": next},
			"items": []any{map[string]any{"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": meta(name)}},
		})
	case "/apis/helm.toolkit.fluxcd.io/v2/helmreleases":
		answer(http.StatusForbidden, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden, Message: "forbidden"})
	case "/apis/metrics.k8s.io/v1beta1":
		answer(http.StatusServiceUnavailable, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonServiceUnavailable, Code: http.StatusServiceUnavailable})
	default:
		answer(http.StatusNotFound, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound})
	}
}

// TestCollect: all pages are read, of Secrets only the metadata; what cannot be read is named and not complete.
func TestCollect(t *testing.T) {
	s := &apiServer{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	in, err := collect.Collect(t.Context(), &rest.Config{Host: server.URL}, collect.Options{})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	for _, o := range in.Objects {
		names[o.GetKind()+" "+o.GetName()]++
	}
	if diff := cmp.Diff(map[string]int{"Kustomization first": 1, "Kustomization second": 1, "Secret values": 1}, names); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	var notRead []string
	for _, n := range in.NotRead {
		notRead = append(notRead, n.What)
	}
	if diff := cmp.Diff([]string{"API group metrics.k8s.io/v1beta1", "helmreleases.helm.toolkit.fluxcd.io"}, notRead); diff != "" {
		t.Errorf("not read (-want +got):\n%s", diff)
	}
	for gk, want := range map[schema.GroupKind]bool{
		{Group: "kustomize.toolkit.fluxcd.io", Kind: "Kustomization"}: true,
		{Kind: "Secret"}: true,
		// The API server does not serve it: there is none.
		{Group: "source.toolkit.fluxcd.io", Kind: "GitRepository"}: true,
		{Group: "helm.toolkit.fluxcd.io", Kind: "HelmRelease"}:     false,
		{Group: "metrics.k8s.io", Kind: "NodeMetrics"}:             false,
	} {
		if in.Complete(gk) != want {
			t.Errorf("%s complete: %v, want %v", gk, !want, want)
		}
	}
	if diff := cmp.Diff([]string{"/api/v1/secrets"}, s.metadataOnly); diff != "" {
		t.Errorf("read as metadata (-want +got):\n%s", diff)
	}
	if in.Now.IsZero() || len(delivery.Analyze(in).NotRead) != 2 {
		t.Error("the report has not what was not read, or no time")
	}
}

func TestCollect_TooMany(t *testing.T) {
	server := httptest.NewServer(&apiServer{})
	t.Cleanup(server.Close)
	_, err := collect.Collect(t.Context(), &rest.Config{Host: server.URL}, collect.Options{MaxObjects: 1})
	if !errors.Is(err, collect.ErrTooMany) {
		t.Errorf("error %v, want %v", err, collect.ErrTooMany)
	}
}

func TestCollect_NoServer(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	if _, err := collect.Collect(t.Context(), &rest.Config{Host: server.URL}, collect.Options{}); err == nil {
		t.Error("no error without an API server")
	} else if want := "reading which kinds the API server serves"; !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}
