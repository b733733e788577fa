// Command supervisor runs another program and ends it when the process that asked
// for it is gone, so that a killed test leaves no etcd, API server or
// controller behind.
//
// envtest decides the arguments of the programs it starts, so supervisor takes none
// of its own: called through a link named /dir/etcd it reads /dir/etcd.supervisor,
// a JSON object with the owner's process id ("owner"), the program ("path")
// and a directory to remove when the owner died without doing so ("remove").
//
// The program's process id is in /dir/etcd.pid. While /dir/etcd.down exists, a program that ends is not the end of
// supervisor, which removes /dir/etcd.pid: once /dir/etcd.down is gone, the program is started again.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// ownerPoll is how often supervisor looks whether its owner still lives.
// stopGrace is what the program gets to end by itself once it does not.
const (
	ownerPoll = 100 * time.Millisecond
	stopGrace = 5 * time.Second
)

func main() {
	code, err := run(os.Args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "supervisor:", err)
	}
	os.Exit(code)
}

// run starts the program of the link args[0] and returns its exit code.
func run(args []string) (int, error) {
	file := args[0] + ".supervisor"
	data, err := os.ReadFile(file)
	if err != nil {
		return 2, fmt.Errorf("reading what to run: %w", err)
	}
	var spec struct {
		Owner  int    `json:"owner"`
		Path   string `json:"path"`
		Remove string `json:"remove"`
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return 2, fmt.Errorf("%s: %w", file, err)
	}

	// Signals are sent to the process group, so the program gets them too.
	// supervisor only has to outlive it.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)

	process, ended, err := start(spec.Path, args)
	if err != nil {
		return 2, err
	}
	ticker := time.NewTicker(ownerPoll)
	defer ticker.Stop()
	for {
		select {
		case <-signals:
		case err := <-ended:
			if !down(args[0]) {
				return exitCode(err)
			}
			process = nil
			if err := os.Remove(args[0] + ".pid"); err != nil {
				return 2, fmt.Errorf("recording that %s is down: %w", spec.Path, err)
			}
		case <-ticker.C:
			switch {
			case os.Getppid() != spec.Owner:
				return abandon(process, ended, spec.Remove)
			case process == nil && !down(args[0]):
				if process, ended, err = start(spec.Path, args); err != nil {
					return 2, err
				}
			}
		}
	}
}

// start starts the program and writes its process id.
func start(path string, args []string) (*os.Process, <-chan error, error) {
	cmd := exec.Command(path, args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting %s: %w", path, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := os.WriteFile(args[0]+".pid", []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("writing the process id of %s: %w", path, err), cmd.Process.Kill())
	}
	return cmd.Process, ended, nil
}

// down reports whether the program shall not run for now.
func down(link string) bool {
	_, err := os.Stat(link + ".down")
	return err == nil
}

// abandon stops the program of an owner that is gone and tidies up after it.
func abandon(process *os.Process, ended <-chan error, remove string) (int, error) {
	var err error
	if process != nil {
		err = process.Signal(syscall.SIGTERM)
		select {
		case <-ended: //nolint:errcheck // its exit code is of no interest any more
		case <-time.After(stopGrace):
			err = errors.Join(err, process.Kill())
			<-ended //nolint:errcheck // see above
		}
	}
	if remove != "" {
		err = errors.Join(err, os.RemoveAll(remove))
	}
	return 1, err
}

// exitCode turns the result of Wait into what a shell would report.
func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 2, err
	case exit.ExitCode() >= 0:
		return exit.ExitCode(), nil
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return 2, err
}
