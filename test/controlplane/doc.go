// Package controlplane runs a real Kubernetes control plane for tests and for
// the demonstration: etcd, kube-apiserver and kubectl, built once from Go
// modules and cached outside the tree, with the CRDs of Flux and CloudNativePG
// as their own modules ship them.
//
// There is no kubelet, no scheduler and no kube-proxy: nothing runs in a pod
// and no Service has an address. A webhook is reached by URL.
//
// It needs a Unix system and, when something has to be built, the go command.
package controlplane
