package serve

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// mapping is a range of addresses of this process.
type mapping struct{ start, end uintptr }

// releaseExecutable takes the read-only pages of this process's executable out of its memory, and returns how many bytes
// were resident. The kernel maps a page again when it is used, from its page cache while there is memory for that.
func releaseExecutable() (int64, error) {
	executable, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("finding the executable: %w", err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, fmt.Errorf("reading the memory map: %w", err)
	}
	defer func() { _ = smaps.Close() }()
	mappings, resident, err := cleanMappings(bufio.NewScanner(smaps), executable)
	if err != nil {
		return 0, fmt.Errorf("reading the memory map: %w", err)
	}
	for _, m := range mappings {
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED); errno != 0 {
			return 0, fmt.Errorf("releasing pages of the executable: %w", errno)
		}
	}
	return resident, nil
}

// cleanMappings returns the read-only mappings of a file in /proc/PID/smaps that have no page of their own, and their resident
// bytes. Only those have the content of the file: a page that the dynamic linker changed would lose the change.
func cleanMappings(smaps *bufio.Scanner, file string) (out []mapping, resident int64, err error) {
	var m mapping
	var rss int64
	ofFile := false
	for smaps.Scan() {
		fields := strings.Fields(smaps.Text())
		if len(fields) == 0 {
			continue
		}
		if !strings.HasSuffix(fields[0], ":") { // ADDRESSES PERMISSIONS OFFSET DEVICE INODE [FILE]
			if ofFile = len(fields) == 6 && fields[5] == file && !strings.Contains(fields[1], "w"); !ofFile {
				continue
			}
			if m, err = parseMapping(fields[0]); err != nil {
				return nil, 0, err
			}
			continue
		}
		if !ofFile || len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "Rss:":
			if rss, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
				return nil, 0, err
			}
		case "Anonymous:":
			if fields[1] == "0" {
				out, resident = append(out, m), resident+rss<<10
			}
		}
	}
	return out, resident, smaps.Err()
}

func parseMapping(text string) (mapping, error) {
	from, to, _ := strings.Cut(text, "-")
	start, err := strconv.ParseUint(from, 16, strconv.IntSize)
	if err != nil {
		return mapping{}, err
	}
	end, err := strconv.ParseUint(to, 16, strconv.IntSize)
	return mapping{uintptr(start), uintptr(end)}, err
}
