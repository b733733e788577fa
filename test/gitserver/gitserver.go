// Package gitserver serves one Git repository over HTTP for tests, by git's
// own http-backend. It needs the git command.
package gitserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Branch is the branch that is served.
const Branch = "main"

// gitTimeout bounds each git command.
const gitTimeout = time.Minute

// Server is a repository and the HTTP server in front of it.
type Server struct {
	git, repository, worktree, home string

	server *http.Server
	url    string
	serve  chan error
	close  func() error

	commit sync.Mutex // one commit at a time: the index is shared
}

// Start creates an empty repository in dir, which must exist, and serves it on
// a free port of the loopback interface. The caller ends it with Close; dir
// stays the caller's. There is nothing to clone before the first Commit.
func Start(ctx context.Context, dir string) (*Server, error) {
	git, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("serving a Git repository: %w", err)
	}
	s := &Server{
		git: git, home: filepath.Join(dir, "home"), worktree: filepath.Join(dir, "worktree"),
		repository: filepath.Join(dir, "served", "repository.git"), serve: make(chan error, 1),
	}
	for _, path := range []string{s.home, s.worktree, filepath.Dir(s.repository)} {
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, fmt.Errorf("serving a Git repository: %w", err)
		}
	}
	if _, err := s.run(ctx, "init", "--quiet", "--bare", "--initial-branch="+Branch, s.repository); err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serving a Git repository: %w", err)
	}
	s.url = "http://" + listener.Addr().String() + "/repository.git"
	s.server = &http.Server{
		Handler: &cgi.Handler{
			Path: git, Args: []string{"http-backend"}, Root: "/",
			Env: append(s.env(), "GIT_PROJECT_ROOT="+filepath.Dir(s.repository), "GIT_HTTP_EXPORT_ALL=1"),
		},
		ReadHeaderTimeout: 10 * time.Second,
		// A client that goes away in the middle is not worth a line.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() { s.serve <- s.server.Serve(listener) }()
	s.close = sync.OnceValue(s.shutdown)
	return s, nil
}

// URL is the address to clone from.
func (s *Server) URL() string { return s.url }

// Close stops serving. It can be called more than once.
func (s *Server) Close() error { return s.close() }

func (s *Server) shutdown() error {
	// Not a caller's context: it is usually over by the time of a cleanup.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.server.Close())
	}
	if served := <-s.serve; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("stopping the Git server: %w", err)
	}
	return nil
}

// Commit writes the files, path to content, over what the branch holds and
// commits them. It returns the commit's id. Files that are not named stay as
// they are; a commit that changes nothing is an error.
func (s *Server) Commit(ctx context.Context, files map[string]string, message string) (string, error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	for name, content := range files {
		path, err := s.path(name)
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", fmt.Errorf("committing %s: %w", name, err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return "", fmt.Errorf("committing %s: %w", name, err)
		}
	}
	return s.record(ctx, message)
}

// Remove deletes files and directories from the branch and commits that. A
// path that is not there is an error.
func (s *Server) Remove(ctx context.Context, message string, names ...string) (string, error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	for _, name := range names {
		path, err := s.path(name)
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("removing %s: %w", name, err)
		}
		if err := os.RemoveAll(path); err != nil {
			return "", fmt.Errorf("removing %s: %w", name, err)
		}
	}
	return s.record(ctx, message)
}

func (s *Server) path(name string) (string, error) {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) {
		return "", fmt.Errorf("committing %q: the path must be inside the repository", name)
	}
	return filepath.Join(s.worktree, local), nil
}

// record commits the worktree as it is.
func (s *Server) record(ctx context.Context, message string) (string, error) {
	for _, args := range [][]string{{"add", "--all"}, {"commit", "--quiet", "--message=" + message}} {
		if _, err := s.run(ctx, append([]string{"--git-dir=" + s.repository, "--work-tree=" + s.worktree}, args...)...); err != nil {
			return "", err
		}
	}
	id, err := s.run(ctx, "--git-dir="+s.repository, "rev-parse", "HEAD")
	return strings.TrimSpace(id), err
}

// run runs git with nothing of the developer's own configuration.
func (s *Server) run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.git, args...)
	cmd.Dir = s.worktree
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "GIT_") || strings.HasPrefix(variable, "HOME=")
	})
	cmd.Env = append(cmd.Env, s.env()...)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stdout.String()+stderr.String()))
	}
	return stdout.String(), nil
}

func (s *Server) env() []string {
	return []string{
		"HOME=" + s.home, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull,
		"GIT_AUTHOR_NAME=bench", "GIT_AUTHOR_EMAIL=bench@example.org",
		"GIT_COMMITTER_NAME=bench", "GIT_COMMITTER_EMAIL=bench@example.org",
	}
}
