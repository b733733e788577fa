package audit

import (
	"net/url"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestBuilder_Allowed(t *testing.T) {
	b := &Builder{Hosts: []string{"artifacts.example.com", "127.0.0.1:8080"}}
	for address, want := range map[string]bool{
		"http://source-controller.flux-system.svc.cluster.local./gitrepository/a/b/c.tar.gz": true,
		"http://source-controller.flux-system.svc/c.tar.gz":                                  true,
		"http://source-watcher.flux-system.svc.example.org/c.tar.gz":                         true,
		"http://artifacts.example.com:8080/c.tar.gz":                                         true,
		"http://127.0.0.1:8080/c.tar.gz":                                                     true,
		"http://127.0.0.1:9090/c.tar.gz":                                                     false,
		"http://source-controller.flux-system.example.com/c.tar.gz":                          false,
		"http://source-controller.tenant.svc.cluster.local/c.tar.gz":                         false,
		"http://source-controller.flux-system.svc@169.254.169.254/latest":                    false,
		"http://169.254.169.254/latest":                                                      false,
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.allowed(u); got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}

func TestNext(t *testing.T) {
	key := func(name string) types.NamespacedName {
		return types.NamespacedName{Namespace: "flux-system", Name: name}
	}
	stored := map[types.NamespacedName]types.NamespacedName{
		key("flux-system"): key("flux-system"), // applies itself
		key("apps"):        key("flux-system"),
		key("web"):         key("apps"),
		key("tenant"):      key("of-another-source"),
	}
	known := map[types.NamespacedName]*unit{}
	expect := func(want string) {
		t.Helper()
		got, ok := next(stored, known)
		if ok != (want != "") || got.Name != want {
			t.Fatalf("%v %v, want %q", got, ok, want)
		}
	}
	expect("flux-system")
	known[key("flux-system")] = &unit{applies: true}
	expect("tenant")
	known[key("tenant")] = &unit{applies: true}
	expect("") // apps is what flux-system applies, or deletes
	known[key("flux-system")].applies = false
	expect("apps")
	known[key("apps")] = &unit{} // suspended
	expect("web")
}
