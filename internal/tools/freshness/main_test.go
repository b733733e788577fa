package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/flux-admission/flux-admission/internal/kindschema/catalog"
)

func TestReport(t *testing.T) {
	entries := []catalog.Entry{
		{Project: "Flux", Version: "2.9.5", Module: "example.com/a", ModuleVersion: "v1.0.0", Date: "2026-11-01"},
		{Project: "Flux", Version: "2.10.0", Module: "example.com/a", ModuleVersion: "v1.1.0", Date: "2026-11-16"},
		{Project: "Argo CD", Version: "3.6.1", Module: "example.com/b", ModuleVersion: "v3.6.1", Date: "2026-10-27"},
	}
	newest := func(_ context.Context, module string) (string, error) {
		if module == "example.com/b" {
			return "", errors.New("no network")
		}
		return "v1.2.0", nil
	}
	var out strings.Builder
	if err := report(t.Context(), &out, entries, newest, time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`Argo CD +3\.6\.1 +example\.com/b +v3\.6\.1 +unknown +30`, `Flux +2\.10\.0 +example\.com/a +v1\.1\.0 +v1\.2\.0 +10`} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("%s is missing in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "2.9.5") {
		t.Error("an older release is listed beside the newest")
	}
}
