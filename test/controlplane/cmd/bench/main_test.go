package main

import (
	"strings"
	"testing"
)

func TestAWrongCommandLineIsOneLineAndExitCode2(t *testing.T) {
	tests := []struct {
		name, args, want string
	}{
		{"no verb", "", "bench: no verb: write `bench build`: see `bench --help`\n"},
		{"a flag without a verb", "--flux", "bench: no verb: write `bench build`: see `bench --help`\n"},
		{"an unknown verb", "biuld", "bench: no verb is named \"biuld\": write `bench build`: see `bench --help`\n"},
		{"an unknown flag", "build --flus", "bench: flag provided but not defined: -flus: see `bench --help`\n"},
		{"an argument too many", "build flux", "bench: unexpected argument \"flux\": see `bench --help`\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			if code := run(t.Context(), strings.Fields(test.args), &stdout, &stderr); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			if stderr.String() != test.want || stdout.Len() > 0 {
				t.Errorf("got %q and %q, want %q on standard error alone", stdout.String(), stderr.String(), test.want)
			}
		})
	}
}

func TestHelpIsNoError(t *testing.T) {
	for _, args := range []string{"--help", "-h", "build --help"} {
		var stdout, stderr strings.Builder
		if code := run(t.Context(), strings.Fields(args), &stdout, &stderr); code != 0 || stdout.String() != usage+"\n" {
			t.Errorf("%s: exit code %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
}
