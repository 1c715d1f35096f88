//go:build tools

// Package tools pins the policy engine that goes into the utility VM: `go build` of the
// module below, at the version and with the dependencies that go.mod and go.sum name.
package tools

import _ "github.com/open-policy-agent/opa"
