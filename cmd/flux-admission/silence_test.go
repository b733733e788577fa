package main

import (
	"bytes"
	"log"
	"log/slog"
	"os"
	"testing"
)

// What a library prints by the standard loggers may be a value of a Secret.
func TestLibrariesCannotPrintThroughTheStandardLoggers(t *testing.T) {
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
