//go:build tools

// Package tools pins kind, which makes the cluster of `make kind`.
package tools

import _ "sigs.k8s.io/kind"
