// Package disk keeps chart archives in a directory, so that a restart finds the charts that were known before it, also when their sources cannot be
// reached. What is read back is checked against its digest.
package disk

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
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
	names   = "names"   // what is known of a reference, by the SHA-256 of its key
)

// maxNote bounds what is kept for one reference, in bytes.
const maxNote = 64 << 10

// ErrNotFound is the error of what the store does not have.
var ErrNotFound = errors.New("not in the cache directory")

// Store is a directory. It is safe for concurrent use, and for several processes: files are written whole or not at all.
type Store struct {
	root  *os.Root
	limit int64

	mu sync.Mutex // held while files are removed
}

// Open opens a store in a directory, which is made when it is not there, with at most limit bytes of archives. Close it.
func Open(dir string, limit int64) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the cache directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the cache directory: %w", err)
	}
	for _, d := range []string{objects, names} {
		if err := root.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(fmt.Errorf("making %s in the cache directory: %w", d, err), root.Close())
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

// Put keeps an archive and returns its SHA-256 in hex. Older archives go when there are too many bytes.
func (s *Store) Put(data []byte) (string, error) {
	digest := sum(data)
	if err := s.write(path.Join(objects, digest), data); err != nil {
		return "", err
	}
	return digest, s.trim()
}

// Get returns the archive of a SHA-256 in hex, checked.
func (s *Store) Get(digest string) ([]byte, error) {
	if len(digest) != hex.EncodedLen(sha256.Size) || strings.Trim(digest, "0123456789abcdef") != "" {
		return nil, ErrNotFound
	}
	data, err := s.read(path.Join(objects, digest), s.limit)
	if err != nil {
		return nil, err
	}
	if sum(data) != digest {
		return nil, fmt.Errorf("%s in the cache directory is damaged", digest)
	}
	return data, nil
}

// Note keeps a short text for a reference.
func (s *Store) Note(key, text string) error {
	if len(text) > maxNote {
		return nil // not worth a file
	}
	return s.write(path.Join(names, sum([]byte(key))), []byte(text))
}

// Noted returns the text that was kept for a reference.
func (s *Store) Noted(key string) (string, error) {
	data, err := s.read(path.Join(names, sum([]byte(key))), maxNote)
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
		return nil, fmt.Errorf("%s in the cache directory is not a file of the cache", name)
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

// trim removes the oldest archives until the rest fits.
func (s *Store) trim() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := fs.ReadDir(s.root.FS(), objects)
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
	for _, f := range files[:max(0, len(files)-1)] { // the newest stays, whatever its size
		if total <= s.limit {
			break
		}
		if err := s.root.Remove(path.Join(objects, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing from the cache directory: %w", err)
		}
		total -= f.Size()
	}
	return nil
}
