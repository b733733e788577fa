package controlplane

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// supervised writes what the supervisor program needs to run path under name, and
// returns the path to start in its place. When this process dies, the supervisor
// ends the program and removes the directory remove.
func supervised(supervisor, dir, name, path, remove string) (string, error) {
	spec, err := json.Marshal(map[string]any{"owner": os.Getpid(), "path": path, "remove": remove})
	if err != nil {
		return "", fmt.Errorf("describing how to run %s: %w", name, err)
	}
	link := filepath.Join(dir, name)
	if err := os.WriteFile(link+".supervisor", spec, 0o600); err != nil {
		return "", fmt.Errorf("describing how to run %s: %w", name, err)
	}
	if err := os.Symlink(supervisor, link); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("preparing to run %s: %w", name, err)
	}
	return link, nil
}

// Command configures StartProcess.
type Command struct {
	// Name appears in errors and in file names. It is unique in Dir.
	Name string
	Path string
	Args []string
	// Env is added to this process's environment.
	Env []string
	// Log receives standard output and standard error, at its end if it exists.
	Log string
	// Dir is a scratch directory that the caller owns: how to run the program
	// is written there. It is removed if this process dies.
	Dir string
	// Supervisor is the path in assets.ControlPlane.
	Supervisor string
}

// Process is a program that ends with the process that started it.
type Process struct {
	name, log, link string
	cmd             *exec.Cmd
	ended           chan struct{}
}

// StartProcess starts a program that is stopped when this process ends, in
// whatever way. The caller stops it with Stop.
func StartProcess(c Command) (*Process, error) {
	path, err := supervised(c.Supervisor, c.Dir, c.Name, c.Path, c.Dir)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	cmd := exec.Command(path, c.Args...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C reaches the owner, which stops it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	if err := errors.Join(err, log.Close()); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	p := &Process{name: c.Name, log: c.Log, link: path, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		// How it ended is in cmd.ProcessState, which is what Failure reports.
		_ = cmd.Wait()
	}()
	return p, nil
}

// Ended is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Pid returns the program's process id, for /proc.
func (p *Process) Pid() (int, error) { return pid(p.link) }

// pid returns the process id of a supervised program.
func pid(link string) (int, error) {
	data, err := os.ReadFile(link + ".pid")
	if err != nil {
		return 0, fmt.Errorf("reading the process id of %s: %w", filepath.Base(link), err)
	}
	n, err := strconv.Atoi(string(data))
	if err != nil {
		return 0, fmt.Errorf("reading the process id of %s: %w", filepath.Base(link), err)
	}
	return n, nil
}

// Log is the path of the file with the program's output.
func (p *Process) Log() string { return p.log }

// Failure describes how the program ended, with the last lines it wrote. It
// waits for the end.
func (p *Process) Failure() error {
	<-p.ended
	return fmt.Errorf("%s ended: %s\n%s", p.name, p.cmd.ProcessState, lastLines(p.log))
}

// Signal sends a signal to the program. One that has ended is no error.
func (p *Process) Signal(signal syscall.Signal) error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("sending %s to %s: %w", signal, p.name, err)
	}
	return nil
}

// Kill ends the program at once, as a crash of its machine would.
func (p *Process) Kill() error {
	err := p.Signal(syscall.SIGKILL)
	<-p.ended
	return err
}

// Stop sends SIGTERM and kills the program if it has not ended after grace, which
// is an error. It returns when the program has ended, and ignores its exit code.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return errors.Join(err, p.Kill())
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(grace):
		return errors.Join(fmt.Errorf("%s did not end within %s of SIGTERM", p.name, grace), p.Kill())
	}
}

// keptLines is how much of a log goes into an error.
const keptLines = 20

// lastLines returns the end of a log file for an error message.
func lastLines(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Sprintf("(its log cannot be read: %v)", err)
	}
	lines := strings.Split(string(bytes.TrimSpace(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-keptLines):], "\n")
}
