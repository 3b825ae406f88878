//go:build tools

// Package tools pins kubeconform for the tests of the chart.
package tools

import _ "github.com/yannh/kubeconform/cmd/kubeconform"
