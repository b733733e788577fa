package manifests_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// The component adds the flag and mounts the CA, beside what another component adds.
func TestComponents_ClientAuthentication(t *testing.T) {
	for name, tc := range map[string]struct {
		components string
		args       []string
		mounts     int
	}{
		"alone": {"../manifests/components/client-authentication", []string{"serve", "--state-dir=/state", "--client-ca-file=/client-ca/ca.crt"}, 2},
		"with cert-manager": {
			"../manifests/components/cert-manager, ../manifests/components/client-authentication",
			[]string{
				"serve", "--state-dir=/state", "--tls-cert-file=/tls/tls.crt", "--tls-key-file=/tls/tls.key",
				"--client-ca-file=/client-ca/ca.crt",
			}, 3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := compose(t, "resources: [../manifests/base]\ncomponents: ["+tc.components+"]\n")
			o := objects(t, dir)["Deployment/flux-admission"]
			if o == nil {
				t.Fatal("there is no Deployment")
			}
			var d appsv1.Deployment
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
				t.Fatal(err)
			}
			pod := d.Spec.Template.Spec
			if diff := cmp.Diff(tc.args, pod.Containers[0].Args); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
			if n := len(pod.Containers[0].VolumeMounts); n != tc.mounts || len(pod.Volumes) != tc.mounts {
				t.Errorf("%d mounts of %d volumes, want %d", n, len(pod.Volumes), tc.mounts)
			}
			for _, m := range pod.Containers[0].VolumeMounts {
				for _, v := range pod.Volumes {
					if m.MountPath == "/client-ca" && v.Name == m.Name && v.ConfigMap != nil && v.ConfigMap.Name == "flux-admission-client-ca" {
						return
					}
				}
			}
			t.Error("the ConfigMap flux-admission-client-ca is not mounted at /client-ca")
		})
	}
}
