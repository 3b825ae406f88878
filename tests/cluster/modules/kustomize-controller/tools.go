//go:build tools

// Package tools pins the kustomize-controller of Flux for the tests of GitOps.
package tools

import _ "github.com/fluxcd/kustomize-controller"
