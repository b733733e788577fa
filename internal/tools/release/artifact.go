package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fluxcd/pkg/oci"
)

// pushArtifact pushes the manifests below a directory as `flux push artifact` does, with Flux's own library, and returns the reference with its
// digest. REVISION is BRANCH@sha1:COMMIT or TAG@sha1:COMMIT.
func pushArtifact(ctx context.Context, reference, revision, directory string) (string, error) {
	client := oci.NewClient(oci.DefaultOptions())
	digest, err := client.Push(ctx, reference, filepath.Join(directory, "manifests"), oci.WithPushMetadata(oci.Metadata{
		Source:   repository,
		Revision: revision,
		Created:  time.Now().UTC().Format(time.RFC3339),
	}), oci.WithPushIgnorePaths(ignored...))
	if err != nil {
		return "", fmt.Errorf("pushing manifests to %s: %w", reference, err)
	}
	return digest, nil
}

// ignored are the files in manifests that are not for a cluster.
var ignored = []string{"*.go", "chart/", "examples/", "*_test.yaml"}
