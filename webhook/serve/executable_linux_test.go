package serve

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestCleanMappings(t *testing.T) {
	t.Parallel()
	const smaps = `00400000-02c00000 r-xp 00000000 fe:00 42 /a program
Rss:  100 kB
Anonymous:  0 kB
VmFlags: rd ex
02c00000-02d00000 r-xp 02800000 fe:00 42 /a program
Rss:  100 kB
Anonymous:  4 kB
02d00000-02e00000 r--p 02900000 fe:00 42 /a program
Anonymous:  0 kB
02e00000-02f00000 rw-p 02a00000 fe:00 42 /a program
Anonymous:  0 kB
03000000-03100000 r--p 00000000 fe:00 43 /a
Anonymous:  0 kB
c000000000-c004000000 rw-p 00000000 00:00 0
Anonymous:  0 kB
7ffd8000-7ffd9000 r-xp 00000000 00:00 0 [vdso]
Anonymous:  0 kB
`
	got, err := cleanMappings(strings.NewReader(smaps), "/a program")
	want := []mapping{{0x400000, 0x2c00000}, {0x2d00000, 0x2e00000}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("mappings %x, %v; want %x: those that are not written and have no page of their own", got, err, want)
	}
	if _, err := cleanMappings(strings.NewReader("x-y r-xp 0 fe:00 42 /a program\n"), "/a program"); err == nil {
		t.Error("no error for addresses that are not numbers")
	}
}

// The process runs on, with fewer pages of its executable in its memory.
func TestUnmapExecutable(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		t.Fatal(err)
	}
	before := resident(t, path)
	if err := unmapExecutable(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t, path); before == 0 || after > before/2 {
		t.Errorf("%d KiB of the executable are resident, %d before; want less than half", after, before)
	}
}

// resident returns how much of the mappings of a file that cannot be written is resident, in KiB.
func resident(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	sum, of := 0, false
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		switch {
		case !strings.HasSuffix(fields[0], ":"):
			of = strings.HasSuffix(strings.TrimSpace(line), " "+path) && !strings.Contains(fields[1], "w")
		case of && fields[0] == "Rss:":
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}
