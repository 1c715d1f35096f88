//go:build tools

// Package tools pins the conformance suite of the CRI; it is built with `go test -c`.
package tools

import _ "sigs.k8s.io/cri-tools/cmd/critest"
