#!/bin/sh
# Makes the Go code of the API in ./gen, with the plugins that go.mod names. BUF names buf where it is not in PATH.
set -eu
cd "$(dirname "$0")"
"${BUF:-buf}" generate --template buf.gen.yaml ../../proto/proto
