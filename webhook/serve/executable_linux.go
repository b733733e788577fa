package serve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// mapping is a part of a file in the memory of the process.
type mapping struct {
	start, end uintptr
}

// unmapExecutable takes the clean pages of the executable out of the memory of the process. The next access to one maps it again, from
// the page cache.
func unmapExecutable() error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the executable: %w", err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("reading the mappings of the process: %w", err)
	}
	defer func() { _ = f.Close() }()
	mappings, err := cleanMappings(f, path)
	if err != nil {
		return fmt.Errorf("reading the mappings of the process: %w", err)
	}
	var errs []error
	for _, m := range mappings {
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED); errno != 0 {
			errs = append(errs, fmt.Errorf("unmapping %x-%x: %w", m.start, m.end, errno))
		}
	}
	return errors.Join(errs...)
}

// cleanMappings returns the mappings of the file at path that cannot be written and are the same as the file. A page of the process' own,
// which relocations, a debugger or a probe have written, would be lost. The format is that of proc_pid_smaps(5): a line for the mapping, and
// a line for each of its numbers.
func cleanMappings(smaps io.Reader, path string) ([]mapping, error) {
	var out []mapping
	var current mapping
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		if strings.HasSuffix(fields[0], ":") {
			if len(fields) > 1 && fields[0] == "Anonymous:" && fields[1] == "0" && current.end > 0 {
				out = append(out, current)
			}
			continue
		}
		current = mapping{}
		if len(fields) < 6 || strings.Join(fields[5:], " ") != path || strings.Contains(fields[1], "w") {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err := strconv.ParseUint(from, 16, strconv.IntSize)
		if err != nil {
			return nil, fmt.Errorf("parsing %q: %w", lines.Text(), err)
		}
		end, err := strconv.ParseUint(to, 16, strconv.IntSize)
		if err != nil {
			return nil, fmt.Errorf("parsing %q: %w", lines.Text(), err)
		}
		current = mapping{uintptr(start), uintptr(end)}
	}
	return out, lines.Err()
}
