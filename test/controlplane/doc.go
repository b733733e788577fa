// Package controlplane runs a real Kubernetes control plane for tests and for
// the demonstration: etcd and kube-apiserver, with kubectl beside them. Package
// assets builds them and finds the CRDs of Flux and CloudNativePG.
//
// There is no kubelet, no scheduler and no kube-proxy: nothing runs in a pod
// and no Service has an address. A webhook is reached by URL.
//
// It needs a Unix system.
package controlplane
