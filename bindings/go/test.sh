#!/bin/sh
# Tests the Go binding against the attend that pkg-config finds, and runs its examples.
set -eu
cd "$(dirname "$0")"
skip() {
  echo "skipped: no $1"
  exit 77
}
command -v go >/dev/null || skip go
command -v "${CC:-cc}" >/dev/null || skip "C compiler"
pkg-config attend || skip "attend where pkg-config looks"
LD_LIBRARY_PATH=$(pkg-config --variable=libdir attend):${LD_LIBRARY_PATH-}
export LD_LIBRARY_PATH

test -z "$(gofmt -l .)" || { gofmt -l . && exit 1; }
go vet ./...
go test -count=1 ./...
# The race detector needs cgo's own runtime for it, which not every platform has.
go test -count=1 -race ./...
go test -run xxx -bench Notebook .
cd examples
go run ./notebook ../../notebook/inputs.txt
go run ./realsize
