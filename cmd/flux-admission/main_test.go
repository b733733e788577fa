package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// asBinary makes the test binary be the program itself.
const asBinary = "FLUX_ADMISSION_TEST_AS_BINARY"

func TestMain(m *testing.M) {
	if os.Getenv(asBinary) != "" {
		main()
	}
	os.Exit(m.Run())
}

// execute runs the program in a process of its own, without a cluster to find by accident.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = []string{asBinary + "=1", "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// kubeconfig writes a kubeconfig for a server.
func kubeconfig(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: server}}, AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {}},
		Contexts: map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}}, CurrentContext: "x",
	}, path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// answers is an API server that knows its version and nothing else.
func answers(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/version" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"gitVersion":"v1.37.2"}`)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestAMistakeIsToldInOneLineThatSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	free := []string{"serve", "--webhook-host=127.0.0.1", "--webhook-port=0", "--health-probe-bind-address=127.0.0.1:0", "--metrics-bind-address=127.0.0.1:0"}
	missing := filepath.Join(t.TempDir(), "missing")
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"an unknown command":        {[]string{"sevre"}, []string{`unknown command "sevre"`, "serve"}},
		"an unknown flag":           {[]string{"serve", "--polciy=x"}, []string{"unknown flag: --polciy", "see `flux-admission serve --help`"}},
		"a flag's value":            {[]string{"serve", "--shutdown-delay=soon"}, []string{`"soon"`, "--shutdown-delay", "--help"}},
		"an argument":               {[]string{"serve", "now"}, []string{`"now"`}},
		"a log level":               {[]string{"serve", "--log-level=loud"}, []string{`--log-level "loud" is not a level: use debug, info, warn or error`}},
		"a log format":              {[]string{"serve", "--log-format=xml"}, []string{`--log-format "xml" is not known: use json or console`}},
		"a policy that is missing":  {append(free, "--policy="+missing), []string{"--policy", missing, "no such file"}},
		"a policy that is no YAML":  {append(free, "--policy="+write(t, "spec: [")), []string{"file: invalid YAML: line 1"}},
		"a policy with a typo":      {append(free, "--policy="+write(t, "apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {mod: Enforce}\n")), []string{`file:4: spec.mod: unknown field; did you mean "spec.mode"?`}},
		"a taken webhook port":      {append(free, "--webhook-port="+port), []string{"cannot listen on 127.0.0.1:" + port, "--webhook-port", "address already in use"}},
		"a taken health port":       {append(free, "--health-probe-bind-address=127.0.0.1:"+port), []string{"cannot listen on 127.0.0.1:" + port, "--health-probe-bind-address"}},
		"a taken metrics port":      {append(free, "--metrics-bind-address=127.0.0.1:"+port), []string{"cannot listen on 127.0.0.1:" + port, "--metrics-bind-address"}},
		"a port that is no port":    {append(free, "--webhook-port=99999"), []string{"99999", "--webhook-port"}},
		"no kubeconfig":             {free, []string{"no cluster to serve: run it in a Pod, or name a kubeconfig file with --kubeconfig or $KUBECONFIG"}},
		"a kubeconfig that is not":  {append(free, "--kubeconfig="+missing), []string{"--kubeconfig", missing}},
		"a kubeconfig that is torn": {append(free, "--kubeconfig="+write(t, "{")), []string{"--kubeconfig"}},
		"a cluster out of reach":    {append(free, "--kubeconfig="+kubeconfig(t, "http://"+taken.Addr().String()[:9]+":1")), []string{"the cluster at http://127.0.0.1:1 does not answer, check --kubeconfig and the network", "connection refused"}},
		"a certificate without key": {append(free, "--tls-cert-file=x", "--kubeconfig="+kubeconfig(t, answers(t))), []string{"--tls-cert-file and --tls-key-file go together"}},
		"a certificate not there":   {append(free, "--tls-cert-file="+missing, "--tls-key-file="+missing, "--kubeconfig="+kubeconfig(t, answers(t))), []string{"--tls-cert-file", missing}},
		"charts that are not there": {append(free, "--charts="+missing, "--kubeconfig="+kubeconfig(t, answers(t))), []string{"--charts", missing}},
		"a chart cache of no size":  {append(free, "--chart-cache=much", "--kubeconfig="+kubeconfig(t, answers(t))), []string{"--chart-cache much: give a size in bytes such as 256Mi"}},
		"a wait that is too long":   {append(free, "--chart-wait=20s", "--kubeconfig="+kubeconfig(t, answers(t))), []string{"--chart-wait 20s: give 0 to 4s; the API server waits 5 s for the whole review"}},
		"a CA that lives too short": {append(free, "--ca-duration=1h", "--leaf-duration=1h", "--kubeconfig="+kubeconfig(t, answers(t))), []string{"--ca-duration", "at least twice as long"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, tc.args...)
			if code != 2 || stdout != "" {
				t.Errorf("exit code %d, output %q; want 2 and none", code, stdout)
			}
			if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "flux-admission: ") {
				t.Errorf("standard error is not one line of ours:\n%s", stderr)
			}
			for _, w := range tc.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("%q does not say %q", stderr, w)
				}
			}
		})
	}
}

func TestVersionAndHelp(t *testing.T) {
	if code, stdout, stderr := execute(t, "version"); code != 0 || strings.TrimSpace(stdout) == "" || stderr != "" {
		t.Errorf("version: exit code %d, %q, %q", code, stdout, stderr)
	}
	code, stdout, _ := execute(t, "serve", "--help")
	if code != 0 {
		t.Errorf("help: exit code %d", code)
	}
	for _, flag := range []string{"--policy", "--charts", "--chart-wait", "--kubeconfig", "--shutdown-delay", "--tls-cert-file", "--webhook-config"} {
		if !strings.Contains(stdout, flag+" ") {
			t.Errorf("the help does not name %s", flag)
		}
	}
}
