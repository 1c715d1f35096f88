//go:build tools

// Package tools pins the CRI client that the tests and the demo use.
package tools

import _ "sigs.k8s.io/cri-tools/cmd/crictl"
