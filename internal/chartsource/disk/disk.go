// Package disk keeps chart archives in a directory, so that they are available after a restart, even when their sources
// are not. It checks the digest of what it reads.
package disk

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// The directories below the store's own.
const (
	objects = "objects" // archives, by their SHA-256
	names   = "names"   // the archives of references, by the SHA-256 of the reference
)

const (
	// maxReference bounds the text for one reference, in bytes.
	maxReference = 64 << 10
	// maxReferences bounds the references. Whoever may write a release can spell one in any number of ways.
	maxReferences = 4096
)

// ErrNotFound is the error of reading what the store does not have.
var ErrNotFound = errors.New("not in the cache directory")

// Store is a directory. It is safe for concurrent use, and for several processes: files are written atomically.
type Store struct {
	root  *os.Root
	limit int64

	mu sync.Mutex // held during eviction
}

// Open opens a store with at most limit bytes of archives in a directory, which it creates if necessary. The caller
// closes it.
func Open(dir string, limit int64) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the cache directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the cache directory: %w", err)
	}
	for _, d := range []string{objects, names} {
		if err := root.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(fmt.Errorf("creating %s in the cache directory: %w", d, err), root.Close())
		}
	}
	return &Store{root: root, limit: limit}, nil
}

// Close closes the store.
func (s *Store) Close() error { return s.root.Close() }

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// Put writes an archive and returns its SHA-256 in hex. It evicts the oldest archives when the limit is exceeded.
func (s *Store) Put(data []byte) (string, error) {
	digest := sum(data)
	if err := s.write(path.Join(objects, digest), data); err != nil {
		return "", err
	}
	return digest, s.evict(objects, s.limit, math.MaxInt)
}

// Get returns the archive with a SHA-256 in hex, and checks it.
func (s *Store) Get(digest string) ([]byte, error) {
	if len(digest) != hex.EncodedLen(sha256.Size) || strings.Trim(digest, "0123456789abcdef") != "" {
		return nil, ErrNotFound
	}
	data, err := s.read(path.Join(objects, digest), s.limit)
	if err != nil {
		return nil, err
	}
	if sum(data) != digest {
		return nil, fmt.Errorf("%s in the cache directory is corrupt", digest)
	}
	return data, nil
}

// PutReference writes a short text for a reference. It ignores a text that is too long, and evicts the oldest references when
// there are too many.
func (s *Store) PutReference(reference, text string) error {
	if len(text) > maxReference {
		return nil
	}
	if err := s.write(path.Join(names, sum([]byte(reference))), []byte(text)); err != nil {
		return err
	}
	return s.evict(names, math.MaxInt64, maxReferences)
}

// Reference returns the text that was written for a reference.
func (s *Store) Reference(reference string) (string, error) {
	data, err := s.read(path.Join(names, sum([]byte(reference))), maxReference)
	return string(data), err
}

func (s *Store) read(name string, limit int64) ([]byte, error) {
	info, err := s.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cache directory: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s in the cache directory is not a regular file within the limit", name)
	}
	data, err := s.root.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the cache directory: %w", err)
	}
	return data, nil
}

func (s *Store) write(name string, data []byte) error {
	temporary := fmt.Sprintf("%s.%d.%d", name, os.Getpid(), time.Now().UnixNano())
	if err := s.root.WriteFile(temporary, data, 0o600); err != nil {
		return errors.Join(fmt.Errorf("writing to the cache directory: %w", err), s.root.Remove(temporary))
	}
	if err := s.root.Rename(temporary, name); err != nil {
		return errors.Join(fmt.Errorf("writing to the cache directory: %w", err), s.root.Remove(temporary))
	}
	return nil
}

// evict removes the oldest files of a directory until the rest is within the limits of bytes and of files. It keeps the newest
// in any case.
func (s *Store) evict(dir string, limit int64, count int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := fs.ReadDir(s.root.FS(), dir)
	if err != nil {
		return fmt.Errorf("listing the cache directory: %w", err)
	}
	var files []fs.FileInfo
	var total int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
			total += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for i, f := range files[:max(0, len(files)-1)] {
		if total <= limit && len(files)-i <= count {
			break
		}
		if err := s.root.Remove(path.Join(dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing from the cache directory: %w", err)
		}
		total -= f.Size()
	}
	return nil
}
