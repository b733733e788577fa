package serve

import (
	"bufio"
	"slices"
	"strings"
	"testing"
)

func TestCleanMappings(t *testing.T) {
	const smaps = `00400000-00402000 r-xp 00000000 fe:00 99   /bin/flux-admission
Size:                  8 kB
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
00402000-00404000 r--p 00002000 fe:00 99   /bin/flux-admission
Rss:                   4 kB
Anonymous:             4 kB
00404000-00408000 r--p 00004000 fe:00 99   /bin/flux-admission
Rss:                  12 kB
Anonymous:             0 kB
00408000-0040a000 rw-p 00008000 fe:00 99   /bin/flux-admission
Rss:                   8 kB
Anonymous:             0 kB
7f0000000000-7f0000002000 r-xp 00000000 fe:00 98   /lib/libc.so
Rss:                   8 kB
Anonymous:             0 kB
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
Rss:                   4 kB
Anonymous:             0 kB
`
	got, resident, err := cleanMappings(bufio.NewScanner(strings.NewReader(smaps)), "/bin/flux-admission")
	if err != nil {
		t.Fatal(err)
	}
	if want := []mapping{{0x400000, 0x402000}, {0x404000, 0x408000}}; !slices.Equal(got, want) || resident != 20<<10 {
		t.Errorf("got %x with %d bytes, want %x with %d", got, resident, want, 20<<10)
	}
}

// The process runs on after its executable left its memory.
func TestReleaseExecutable(t *testing.T) {
	released, err := releaseExecutable()
	if err != nil {
		t.Fatal(err)
	}
	if released == 0 {
		t.Error("no page of the executable was resident, want some")
	}
}
