package controlplane_test

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/flux-admission/flux-admission/test/controlplane"
)

// programEnv makes this test binary one of the programs below.
const programEnv = "FLUX_ADMISSION_TEST_PROGRAM"

// runProgram is what a program under test does; it returns the exit code.
func runProgram(name string) int {
	switch name {
	case "fails":
		fmt.Println("cannot go on")
		return 7
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("running")
		time.Sleep(time.Minute)
	case "obedient":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		fmt.Println("running")
		<-stop
		fmt.Println("stopped in order")
	}
	return 0
}

// startProgram starts one of the programs and waits for its first line.
func startProgram(t *testing.T, name string) *controlplane.Process {
	t.Helper()
	dir := t.TempDir()
	p, err := controlplane.StartProcess(controlplane.Command{
		Name: name, Path: os.Args[0], Env: []string{programEnv + "=" + name},
		Log: filepath.Join(dir, "log"), Dir: dir, Supervisor: plane.Assets().Supervisor,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	for readLog(t, p) == "" {
		select {
		case <-t.Context().Done():
			t.Fatal("the program printed nothing")
		case <-time.After(10 * time.Millisecond):
		}
	}
	return p
}

func readLog(t *testing.T, p *controlplane.Process) string {
	t.Helper()
	data, err := os.ReadFile(p.Log())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestProcess_Failure(t *testing.T) {
	p := startProgram(t, "fails")
	if got, want := p.Failure().Error(), "fails ended: exit status 7\ncannot go on"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := p.Stop(time.Minute); err != nil {
		t.Errorf("stopping what has ended: %v", err)
	}
}

func TestProcess_Stop(t *testing.T) {
	p := startProgram(t, "obedient")
	if err := p.Stop(time.Minute); err != nil {
		t.Error(err)
	}
	if got := readLog(t, p); got != "running\nstopped in order\n" {
		t.Errorf("its log is %q", got)
	}
}

func TestProcess_StopKills(t *testing.T) {
	p := startProgram(t, "deaf")
	err := p.Stop(50 * time.Millisecond)
	if want := "deaf did not end within 50ms of SIGTERM"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	<-p.Ended()
}
