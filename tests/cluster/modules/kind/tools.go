//go:build tools

// Package tools pins kind for machines that have Docker.
package tools

import _ "sigs.k8s.io/kind"
