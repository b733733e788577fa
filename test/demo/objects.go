package main

// The objects of the story, as users write them.

const clusterWithMonitoring = `apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: airflow-db
  namespace: airflow
spec:
  instances: 1
  storage:
    size: 1Gi
  monitoring:
    enabled: true
`

const clusterClean = `apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: patched-db
  namespace: airflow
spec:
  instances: 1
  storage:
    size: 1Gi
`

const kustomizationWithClusterPatch = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: databases
  namespace: flux-system
spec:
  interval: 10m
  path: ./kubernetes/databases
  prune: true
  targetNamespace: airflow
  sourceRef:
    kind: GitRepository
    name: flux-system
  patches:
    - target:
        kind: Cluster
      patch: |
        - op: add
          path: /spec/monitoring/enabled
          value: true
`

const kustomizationInAirflow = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: airflow
  namespace: airflow
spec:
  interval: 10m
  path: ./kubernetes/apps/airflow/app
  prune: true
  sourceRef:
    kind: GitRepository
    name: flux-system
`

const kustomizationInFluxSystem = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: airflow
  namespace: flux-system
spec:
  interval: 10m
  path: ./kubernetes/apps/airflow/app
  prune: true
  sourceRef:
    kind: GitRepository
    name: flux-system
`

// gitRepository takes a namespace. Nothing fetches it: no Flux controller runs here.
const gitRepository = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata:
  name: flux-system
  namespace: %s
spec:
  interval: 1h
  url: https://git.example.com/cluster
`

// helmRepository takes the URL of the demo's own repository.
const helmRepository = `apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata:
  name: apache-airflow
  namespace: airflow
spec:
  interval: 1h
  url: %s
`

const releaseRefused = `apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata:
  name: airflow
  namespace: airflow
spec:
  interval: 10m
  chart:
    spec:
      chart: airflow
      version: 1.x
      sourceRef:
        kind: HelmRepository
        name: apache-airflow
  values:
    executor: KubernetesExecutor
    data:
      metadataConnection:
        existingSecret: airflow-db-app
        existingSecretKey: uri
`

const releaseRepaired = `apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata:
  name: airflow
  namespace: airflow
spec:
  interval: 10m
  chart:
    spec:
      chart: airflow
      version: 1.x
      sourceRef:
        kind: HelmRepository
        name: apache-airflow
  values:
    executor: KubernetesExecutor
    data:
      metadataSecretName: airflow-db-app
`

// policy takes the mode. The mutation maps a directory to its namespace.
const policy = `apiVersion: flux-admission.dev/v1alpha1
kind: AdmissionPolicy
metadata:
  name: default
spec:
  mode: %s
  rules:
    kustomization-namespace: {action: Deny, allowedNamespaces: [flux-system]}
    helm-values-schema: {action: Deny}
    cnpg-monitoring-enabled: {action: Deny}
  mutations:
    target-namespace:
      - match: {namespaces: [flux-system], path: '^\./kubernetes/apps/(?P<ns>[^/]+)/'}
        targetNamespace: "{ns}"
`
