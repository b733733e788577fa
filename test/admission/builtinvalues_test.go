package admission_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/flux-admission/flux-admission/internal/kindschema"
	"github.com/flux-admission/flux-admission/validators"
)

const (
	workload = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  selector: {matchLabels: {a: b}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {a: b}}
    spec:
      volumes:
      - {name: data, emptyDir: {}}
      - {name: config, configMap: {name: c}}
      initContainers:
      - {name: init, image: busybox, volumeMounts: [{name: data, mountPath: /data}]}
      containers:
      - name: main
        image: nginx
        ports: [{name: http, containerPort: 80}, {name: metrics, containerPort: 81, protocol: UDP}]
        env:
        - {name: PLAIN, value: x}
        - {name: FROM, value: "", valueFrom: {secretKeyRef: {name: s, key: k}}}
        - {name: with-dash.and.dot, value: x}
        resources: {requests: {cpu: 100m, memory: 1Gi}, limits: {memory: 1024Mi}}
        livenessProbe: {httpGet: {port: http, path: /}, successThreshold: 1}
        readinessProbe: {exec: {command: [x]}, successThreshold: 3}
        startupProbe: {grpc: {port: 80}}
        volumeMounts:
        - {name: data, mountPath: /data}
        - {name: config, mountPath: /config, subPath: a/b..c}
`
	set = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: a}
spec:
  selector: {matchLabels: {a: b}}
  serviceName: a
  template:
    metadata: {labels: {a: b}}
    spec:
      containers: [{name: main, image: nginx, volumeMounts: [{name: claimed, mountPath: /data}]}]
  volumeClaimTemplates:
  - metadata: {name: claimed}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`
	cronJob = `
apiVersion: batch/v1
kind: CronJob
metadata: {name: a}
spec:
  schedule: "*/5 0 1,15 * mon-fri"
  jobTemplate: {spec: {template: {spec: {restartPolicy: OnFailure, containers: [{name: a, image: b}]}}}}
`
	service = `
apiVersion: v1
kind: Service
metadata: {name: a}
spec:
  ports: [{name: http, port: 80, targetPort: http}, {name: https-2, port: 443, targetPort: 8443}]
`
	headless = `
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: None}
`
	ingress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: a}
spec:
  rules:
  - host: "*.example.com"
    http:
      paths:
      - {pathType: Prefix, path: /, backend: {service: {name: a, port: {number: 80}}}}
      - {pathType: ImplementationSpecific, backend: {service: {name: a, port: {name: http}}}}
`
	autoscaler = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: a}
spec: {minReplicas: 1, maxReplicas: 1, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: a}}
`
	budget = `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: a}
spec: {minAvailable: 1, selector: {matchLabels: {a: b}}}
`
	claim = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: a}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`
	tlsSecret = `
apiVersion: v1
kind: Secret
metadata: {name: a}
type: kubernetes.io/tls
data: {tls.crt: YQ==}
stringData: {tls.key: a}
`
	basicAuth = `
apiVersion: v1
kind: Secret
metadata: {name: a}
type: kubernetes.io/basic-auth
stringData: {password: a}
`
)

// TestBuiltInValues: what check rejects of Kubernetes' own kinds the API server rejects, and it accepts what they were made from.
func TestBuiltInValues(t *testing.T) {
	kinds, err := kindschema.NewSet(kindschema.Options{Complete: true})
	if err != nil {
		t.Fatal(err)
	}
	ns := namespace(t)
	for name, tc := range map[string]struct {
		object string
		// at gets value; nil removes it. Without at the object is valid.
		at    string
		value string
		// want is the path of the finding; by default at.
		want string
	}{
		"a Deployment":                          {object: workload},
		"a StatefulSet":                         {object: set},
		"a CronJob":                             {object: cronJob},
		"a schedule by name":                    {object: cronJob, at: "spec.schedule", value: `"@daily"`, want: "-"},
		"a Service":                             {object: service},
		"a headless Service":                    {object: headless},
		"an Ingress":                            {object: ingress},
		"an autoscaler":                         {object: autoscaler},
		"a budget":                              {object: budget},
		"a claim":                               {object: claim},
		"a TLS Secret":                          {object: tlsSecret},
		"a basic-auth Secret":                   {object: basicAuth},
		"an Ingress without http":               {object: ingress, at: "spec.rules.0", value: `{host: a.example.com}`, want: "-"},
		"two types of a volume removed by null": {object: workload, at: "spec.template.spec.volumes.0", value: `{name: data, emptyDir: {}, configMap: null}`, want: "-"},

		"no containers":              {object: workload, at: "spec.template.spec.containers", value: `[]`},
		"no image":                   {object: workload, at: "spec.template.spec.containers.0.image"},
		"name with a capital":        {object: workload, at: "spec.template.spec.containers.0.name", value: `Main`},
		"mount without a volume":     {object: workload, at: "spec.template.spec.containers.0.volumeMounts.0.name", value: `dta`},
		"mount in an init container": {object: workload, at: "spec.template.spec.initContainers.0.volumeMounts.0.name", value: `dta`},
		"mount of no claim":          {object: set, at: "spec.template.spec.containers.0.volumeMounts.0.name", value: `dta`},
		"mount without a path":       {object: workload, at: "spec.template.spec.containers.0.volumeMounts.0.mountPath"},
		"two mounts of one path":     {object: workload, at: "spec.template.spec.containers.0.volumeMounts.1.mountPath", value: `/data`, want: "spec.template.spec.containers[0].volumeMounts[1]"},
		"absolute subPath":           {object: workload, at: "spec.template.spec.containers.0.volumeMounts.1.subPath", value: `/a`},
		"volume of two types":        {object: workload, at: "spec.template.spec.volumes.0", value: `{name: data, emptyDir: {}, configMap: {name: a}}`},
		"volume with a capital":      {object: workload, at: "spec.template.spec.volumes.0.name", value: `Data`},
		"value and valueFrom":        {object: workload, at: "spec.template.spec.containers.0.env.1.value", value: `x`, want: "spec.template.spec.containers[0].env[1].valueFrom"},
		"valueFrom nothing":          {object: workload, at: "spec.template.spec.containers.0.env.1.valueFrom", value: `{}`},
		"valueFrom without a key":    {object: workload, at: "spec.template.spec.containers.0.env.1.valueFrom.secretKeyRef.key"},
		"variable with =":            {object: workload, at: "spec.template.spec.containers.0.env.0.name", value: `"A=B"`},
		"request above the limit":    {object: workload, at: "spec.template.spec.containers.0.resources.requests.memory", value: `2Gi`},
		"probe without a handler":    {object: workload, at: "spec.template.spec.containers.0.livenessProbe", value: `{periodSeconds: 3}`},
		"probe of two handlers":      {object: workload, at: "spec.template.spec.containers.0.livenessProbe", value: `{httpGet: {port: 80}, tcpSocket: {port: 80}}`},
		"liveness of two successes":  {object: workload, at: "spec.template.spec.containers.0.livenessProbe.successThreshold", value: `2`},
		"long name of a port":        {object: workload, at: "spec.template.spec.containers.0.ports.0.name", value: `a-very-long-name-of-a-port`},
		"two ports of one name":      {object: workload, at: "spec.template.spec.containers.0.ports.1.name", value: `http`},
		"protocol in small letters":  {object: workload, at: "spec.template.spec.containers.0.ports.0.protocol", value: `tcp`},
		"port too large":             {object: workload, at: "spec.template.spec.containers.0.ports.0.containerPort", value: `80000`},
		"Deployment that ends":       {object: workload, at: "spec.template.spec.restartPolicy", value: `Never`},
		"Recreate and rollingUpdate": {object: workload, at: "spec.strategy.rollingUpdate", value: `{maxSurge: 1}`},
		"unknown strategy":           {object: workload, at: "spec.strategy.type", value: `recreate`},
		"Job without restartPolicy":  {object: cronJob, at: "spec.jobTemplate.spec.template.spec.restartPolicy"},
		"Job that restarts":          {object: cronJob, at: "spec.jobTemplate.spec.template.spec.restartPolicy", value: `Always`},
		"no schedule":                {object: cronJob, at: "spec.schedule"},
		"schedule of words":          {object: cronJob, at: "spec.schedule", value: `every day`},
		"schedule of six fields":     {object: cronJob, at: "spec.schedule", value: `"0 0 0 * * *"`},
		"ports without a name":       {object: service, at: "spec.ports.0.name"},
		"ports of one name":          {object: service, at: "spec.ports.0.name", value: `https-2`, want: "spec.ports[1].name"},
		"port name with a dot":       {object: service, at: "spec.ports.0.name", value: `a.b`},
		"targetPort of 16 letters":   {object: service, at: "spec.ports.0.targetPort", value: `a-very-long-name`},
		"unknown type":               {object: service, at: "spec.type", value: `Loadbalancer`},
		"Service without ports":      {object: service, at: "spec.ports", value: `[]`},
		"ExternalName of nothing":    {object: service, at: "spec.type", value: `ExternalName`, want: "spec.externalName"},
		"Ingress without pathType":   {object: ingress, at: "spec.rules.0.http.paths.0.pathType"},
		"Ingress of a relative path": {object: ingress, at: "spec.rules.0.http.paths.0.path", value: `a`},
		"Ingress without a path":     {object: ingress, at: "spec.rules.0.http.paths.0.path"},
		"Ingress without a backend":  {object: ingress, at: "spec.rules.0.http.paths.0.backend", value: `{}`, want: "spec.rules[0].http.paths[0].backend.service"},
		"Ingress without a port":     {object: ingress, at: "spec.rules.0.http.paths.0.backend.service.port"},
		"Ingress of an address":      {object: ingress, at: "spec.rules.0.host", value: `192.0.2.1`},
		"Ingress of a URL":           {object: ingress, at: "spec.rules.0.host", value: `https://a.example.com`},
		"Ingress of nothing":         {object: ingress, at: "spec.rules", value: `[]`},
		"minimum above the maximum":  {object: autoscaler, at: "spec.minReplicas", value: `3`, want: "spec.maxReplicas"},
		"no maximum":                 {object: autoscaler, at: "spec.maxReplicas"},
		"budget of both":             {object: budget, at: "spec.maxUnavailable", value: `1`},
		"claim without a mode":       {object: claim, at: "spec.accessModes"},
		"claim of an unknown mode":   {object: claim, at: "spec.accessModes", value: `[RWO]`, want: "spec.accessModes[0]"},
		"claim without a size":       {object: claim, at: "spec.resources", want: "spec.resources.requests.storage"},
		"TLS Secret without a key":   {object: tlsSecret, at: "stringData", want: "data[tls.key]"},
		"basic-auth of nothing":      {object: basicAuth, at: "stringData", want: "data.username"},
	} {
		t.Run(name, func(t *testing.T) {
			o := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(tc.object), &o.Object); err != nil {
				t.Fatal(err)
			}
			want := tc.want
			if tc.at != "" {
				path := change(t, o, tc.at, tc.value)
				if want == "" {
					want = path.String()
				}
			}
			k, _, err := kinds.Kind(t.Context(), o.GroupVersionKind().GroupKind())
			if err != nil {
				t.Fatal(err)
			}
			s, err := k.Schemas.Schema(o.GroupVersionKind().Version)
			if err != nil {
				t.Fatal(err)
			}
			found := s.InvalidValues(t.Context(), o)
			o.SetNamespace(ns)
			err = shared.Client.Create(t.Context(), o, client.DryRunAll)
			if valid := tc.at == "" || tc.want == "-"; valid {
				if err != nil || len(found) > 0 {
					t.Errorf("the API server answers %v, check finds %v; want neither", err, found)
				}
				return
			}
			if !apierrors.IsInvalid(err) {
				t.Errorf("the API server answers %v, want Invalid", err)
			}
			if !slices.ContainsFunc(found, func(v validators.InvalidValue) bool { return v.Path.String() == want }) {
				t.Errorf("check finds %v, want %s; the API server answers %v", found, want, err)
			}
		})
	}
}

// change sets a field of an object to a value in YAML, or removes it if there is none, and returns the path of the field. The steps
// of at are separated by dots; a number is the index of an entry that exists.
func change(t *testing.T, o *unstructured.Unstructured, at, value string) validators.Path {
	t.Helper()
	var parsed any
	if err := yaml.Unmarshal([]byte(value), &parsed); err != nil {
		t.Fatal(err)
	}
	if n, ok := parsed.(float64); ok {
		parsed = int64(n)
	}
	steps := strings.Split(at, ".")
	var path validators.Path
	parent := any(o.Object)
	for i, step := range steps {
		last := i == len(steps)-1
		if n, err := strconv.Atoi(step); err == nil {
			path = path.Index(n)
			list, ok := parent.([]any)
			if !ok || n >= len(list) {
				t.Fatalf("%s is not in the object", path)
			}
			if last {
				list[n] = parsed
			}
			parent = list[n]
			continue
		}
		path = path.Child(step)
		m, ok := parent.(map[string]any)
		switch {
		case !ok:
			t.Fatalf("%s is not in the object", path)
		case last && value == "":
			delete(m, step)
		case last:
			m[step] = parsed
		}
		parent = m[step]
	}
	return path
}
