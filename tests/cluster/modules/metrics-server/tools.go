//go:build tools

// Package tools pins what measures the pods of the test cluster for autoscalers.
package tools

import _ "sigs.k8s.io/metrics-server/cmd/metrics-server"
