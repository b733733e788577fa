package main

import (
	"strings"
	"testing"
)

func TestRun_WrongCommandLine(t *testing.T) {
	tests := []struct {
		name, args, want string
	}{
		{"no command", "", "testenv: no command: write `testenv build`: see `testenv --help`\n"},
		{"a flag without a command", "--flux", "testenv: no command: write `testenv build`: see `testenv --help`\n"},
		{"an unknown command", "biuld", "testenv: unknown command \"biuld\": write `testenv build`: see `testenv --help`\n"},
		{"an unknown flag", "build --flus", "testenv: flag provided but not defined: -flus: see `testenv --help`\n"},
		{"one argument too many", "build flux", "testenv: unexpected argument \"flux\": see `testenv --help`\n"},
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

func TestRun_Help(t *testing.T) {
	for _, args := range []string{"--help", "-h", "build --help"} {
		var stdout, stderr strings.Builder
		if code := run(t.Context(), strings.Fields(args), &stdout, &stderr); code != 0 || stdout.String() != usage+"\n" {
			t.Errorf("%s: exit code %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
}
