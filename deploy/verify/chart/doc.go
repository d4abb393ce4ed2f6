// Package chart holds the proof of the Helm chart: what can be proven of it without
// a cluster. It is a module of its own, so that Kubernetes' types do not become
// dependencies of the gateway. The programs helm and kubectl-validate are installed
// by `make check`, the gateway is built from this repository.
package chart
