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

// asBinary is the environment variable that makes the test binary run the program itself.
const asBinary = "FLUX_ADMISSION_TEST_AS_BINARY"

func TestMain(m *testing.M) {
	if os.Getenv(asBinary) != "" {
		main()
	}
	os.Exit(m.Run())
}

// execute runs the program in a process of its own, with an environment in which it finds no cluster.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = []string{asBinary + "=1", "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	// A program that is built for coverage warns on standard error if it does not know where to write it.
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		cmd.Env = append(cmd.Env, "GOCOVERDIR="+dir)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// kubeconfig writes a kubeconfig for a server and returns its path.
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

// apiServer starts an API server that only serves its version, and returns its URL.
func apiServer(t *testing.T) string {
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

func TestRun_InvalidArguments(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	free := []string{
		"serve", "--webhook-host=127.0.0.1", "--webhook-port=0", "--health-probe-bind-address=127.0.0.1:0",
		"--metrics-bind-address=127.0.0.1:0",
	}
	missing := filepath.Join(t.TempDir(), "missing")
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"an unknown command": {[]string{"sevre"}, []string{`unknown command "sevre" for "flux-admission"; did you mean serve?`}},
		"an unknown flag": {
			[]string{"serve", "--polciy=x"}, []string{"unknown flag: --polciy", "see `flux-admission serve --help`"},
		},
		"an invalid value of a flag": {
			[]string{"serve", "--shutdown-delay=soon"}, []string{`"soon"`, "--shutdown-delay", "--help"},
		},
		"an unexpected argument": {[]string{"serve", "now"}, []string{`"now"`}},
		"an unknown log level": {
			[]string{"serve", "--log-level=loud"},
			[]string{`--log-level "loud" must be debug, info, warn or error`},
		},
		"an unknown log format": {
			[]string{"serve", "--log-format=xml"}, []string{`--log-format "xml" must be json or console`},
		},
		"a missing policy":          {append(free, "--policy="+missing), []string{"--policy", missing, "no such file"}},
		"a policy that is not YAML": {append(free, "--policy="+write(t, "spec: [")), []string{"file: invalid YAML: line 1"}},
		"a policy with a typo": {
			append(
				free,
				"--policy="+write(
					t,
					"apiVersion: flux-admission.dev/v1alpha1\nkind: AdmissionPolicy\nmetadata: {name: default}\nspec: {mod: Enforce}\n",
				),
			),
			[]string{`file:4: spec.mod: unknown field; did you mean "spec.mode"?`},
		},
		"a webhook port in use": {
			append(free, "--webhook-port="+port),
			[]string{"cannot listen on 127.0.0.1:" + port, "--webhook-port", "address already in use"},
		},
		"a health port in use": {
			append(free, "--health-probe-bind-address=127.0.0.1:"+port),
			[]string{"cannot listen on 127.0.0.1:" + port, "--health-probe-bind-address"},
		},
		"a metrics port in use": {
			append(free, "--metrics-bind-address=127.0.0.1:"+port),
			[]string{"cannot listen on 127.0.0.1:" + port, "--metrics-bind-address"},
		},
		"an invalid port": {append(free, "--webhook-port=99999"), []string{"99999", "--webhook-port"}},
		"no kubeconfig": {
			free, []string{"no cluster to serve: run it in a Pod, or name a kubeconfig file with --kubeconfig or $KUBECONFIG"},
		},
		"a missing kubeconfig":  {append(free, "--kubeconfig="+missing), []string{"--kubeconfig", missing}},
		"an invalid kubeconfig": {append(free, "--kubeconfig="+write(t, "{")), []string{"--kubeconfig"}},
		"an unreachable cluster": {
			append(free, "--kubeconfig="+kubeconfig(t, "http://"+taken.Addr().String()[:9]+":1")),
			[]string{
				"the cluster at http://127.0.0.1:1 does not respond; check --kubeconfig and the network", "connection refused",
			},
		},
		"a certificate without a key": {
			append(free, "--tls-cert-file=x", "--kubeconfig="+kubeconfig(t, apiServer(t))),
			[]string{"--tls-cert-file and --tls-key-file must be set together"},
		},
		"a missing certificate": {
			append(free, "--tls-cert-file="+missing, "--tls-key-file="+missing, "--kubeconfig="+kubeconfig(t, apiServer(t))),
			[]string{"--tls-cert-file", missing},
		},
		"a missing client CA": {
			append(free, "--client-ca-file="+missing, "--kubeconfig="+kubeconfig(t, apiServer(t))),
			[]string{"--client-ca-file", missing},
		},
		"a client CA that is none": {
			append(free, "--client-ca-file="+write(t, "nothing"), "--kubeconfig="+kubeconfig(t, apiServer(t))),
			[]string{"--client-ca-file"},
		},
		"a name of clients without a CA": {
			append(free, "--client-ca-name=kube-apiserver", "--kubeconfig="+kubeconfig(t, apiServer(t))),
			[]string{"--client-ca-name needs --client-ca-file"},
		},
		"a missing directory of charts": {
			append(free, "--charts="+missing, "--kubeconfig="+kubeconfig(t, apiServer(t))), []string{"--charts", missing},
		},
		"an invalid size of the chart cache": {
			append(free, "--chart-cache=much", "--kubeconfig="+kubeconfig(t, apiServer(t))),
			[]string{"--chart-cache much must be a size in bytes such as 256Mi"},
		},
		"a chart wait that is too long": {
			append(free, "--chart-wait=20s", "--kubeconfig="+kubeconfig(t, apiServer(t))),
			[]string{"--chart-wait 20s must be between 0 and 4s; the API server waits 5 s for a review"},
		},
		"a CA duration that is too short": {
			append(free, "--ca-duration=1h", "--leaf-duration=1h", "--kubeconfig="+kubeconfig(t, apiServer(t))),
			[]string{"--ca-duration", "at least twice as long"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, tc.args...)
			if code != 2 || stdout != "" {
				t.Errorf("exit code %d, output %q; want 2 and none", code, stdout)
			}
			if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "flux-admission: ") {
				t.Errorf("standard error is not one line of the program:\n%s", stderr)
			}
			for _, w := range tc.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("standard error %q does not have %q", stderr, w)
				}
			}
		})
	}
}

func TestRun_VersionAndHelp(t *testing.T) {
	if code, stdout, stderr := execute(t, "version"); code != 0 || strings.TrimSpace(stdout) == "" || stderr != "" {
		t.Errorf("version: exit code %d, %q, %q", code, stdout, stderr)
	}
	code, stdout, _ := execute(t, "serve", "--help")
	if code != 0 {
		t.Errorf("help: exit code %d", code)
	}
	for _, flag := range []string{"--policy", "--charts", "--chart-wait", "--kubeconfig", "--shutdown-delay", "--tls-cert-file", "--webhook-config"} {
		if !strings.Contains(stdout, flag+" ") {
			t.Errorf("the help does not have %s", flag)
		}
	}
}
