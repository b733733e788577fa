package suggest_test

import (
	"strings"
	"testing"

	"github.com/flux-admission/flux-admission/internal/suggest"
)

func TestNearest(t *testing.T) {
	long := strings.Repeat("a", 1000)
	for name, tc := range map[string]struct {
		name  string
		known []string
		want  string
	}{
		"a letter left out is found":                   {"replcas", []string{"resources", "replicas"}, "replicas"},
		"letters swapped are found":                    {"metadataConnetcion", []string{"metadataConnection", "resultBackendConnection"}, "metadataConnection"},
		"letters swapped in a short name are found":    {"prot", []string{"name", "port"}, "port"},
		"a word too many is found":                     {"storageClassName", []string{"pvcTemplate", "resizeInUseVolumes", "size", "storageClass"}, "storageClass"},
		"a long name is not near another long name":    {"retryInterval", []string{"interval", "storageNamespace", "targetNamespace"}, ""},
		"another case is found":                        {"existingsecret", []string{"existingSecret"}, "existingSecret"},
		"another word is not suggested":                {"existingSecret", []string{"user", "pass", "protocol"}, ""},
		"the name itself is not suggested":             {"user", []string{"user"}, ""},
		"two equally near names are not chosen from":   {"port", []string{"ports", "sport"}, ""},
		"a name given twice is not a tie":              {"prt", []string{"port", "port"}, "port"},
		"a very short name is never guessed":           {"ab", []string{"ac"}, ""},
		"a very short name in another case is found":   {"DB", []string{"db"}, "db"},
		"a very long name is not compared":             {long + "b", []string{long}, ""},
		"nothing is near an empty name":                {"", []string{"a"}, ""},
		"nothing is near when nothing is known":        {"replicas", nil, ""},
		"letters outside ASCII count as one edit each": {"größe", []string{"grösse", "größen"}, "größen"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := suggest.Nearest(tc.name, tc.known); got != tc.want {
				t.Errorf("Nearest(%q, %q) = %q, want %q", tc.name, tc.known, got, tc.want)
			}
		})
	}
}

func TestNearestPath(t *testing.T) {
	for name, tc := range map[string]struct {
		missing  string
		existing []string
		want     string
	}{
		"a letter left out is found":                   {"apps/bse", []string{"apps", "apps/base", "infra"}, "apps/base"},
		"a suffix too many is found":                   {"apps/web.yaml", []string{"apps/web.yml", "apps/db.yml"}, "apps/web.yml"},
		"another path is not suggested":                {"apps/web", []string{"clusters/production"}, ""},
		"of equally near paths the first is suggested": {"app/c", []string{"app/b", "app/a"}, "app/a"},
		"nothing is near when nothing exists":          {"apps/web", nil, ""},
		"a very long path is not compared":             {strings.Repeat("a", 1000), []string{strings.Repeat("a", 999)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := suggest.NearestPath(tc.missing, tc.existing); got != tc.want {
				t.Errorf("NearestPath(%q, %q) = %q, want %q", tc.missing, tc.existing, got, tc.want)
			}
		})
	}
}
