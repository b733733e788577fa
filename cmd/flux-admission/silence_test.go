package main

import (
	"bytes"
	"log"
	"log/slog"
	"os"
	"testing"
)

// TestSilenceLibraries requires that the standard loggers print nothing: a library may log values of a Secret there.
func TestSilenceLibraries(t *testing.T) {
	var out bytes.Buffer
	log.SetOutput(&out)
	before := slog.Default()
	t.Cleanup(func() {
		log.SetOutput(os.Stderr)
		slog.SetDefault(before)
	})
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	silenceLibraries()
	log.Print("hunter2")
	slog.Warn("hunter2")
	if out.Len() > 0 {
		t.Errorf("printed %q", out.String())
	}
}
