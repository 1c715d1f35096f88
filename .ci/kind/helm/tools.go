//go:build tools

// Package tools pins helm, with which the chart in shim/deploy/helm is tested.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
