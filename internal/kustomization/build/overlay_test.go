package build

import (
	"errors"
	"testing"

	"github.com/flux-admission/flux-admission/internal/sourcetree"
)

func TestOverlay_ReadOnly(t *testing.T) {
	o := &overlay{artifact: sourcetree.NewArtifact("a.yaml", nil, sourcetree.Limits{}), read: map[string]bool{}}
	for name, err := range map[string]error{
		"WriteFile": o.WriteFile("/a", nil), "Mkdir": o.Mkdir("/a"), "MkdirAll": o.MkdirAll("/a"), "RemoveAll": o.RemoveAll("/a"),
	} {
		if !errors.Is(err, errReadOnly) {
			t.Errorf("%s returns %v, want %v", name, err, errReadOnly)
		}
	}
}
