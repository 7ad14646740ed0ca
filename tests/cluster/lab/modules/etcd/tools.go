//go:build tools

// Package tools names what is built, so that `go mod tidy` keeps the modules that it needs.
package tools

import _ "go.etcd.io/etcd/server/v3"
