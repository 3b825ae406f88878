//go:build tools

// Package tools pins kube-score for the tests of the chart.
package tools

import _ "github.com/zegl/kube-score/cmd/kube-score"
