#!/bin/sh
# Makes the Python code of the API below DIRECTORY: generate.sh DIRECTORY. The python that is found first needs grpcio-tools.
set -eu
protos=$(cd "$(dirname "$0")/../../proto/proto" && pwd)
cd "${1:?the directory for the generated code}"
python -m grpc_tools.protoc --proto_path="$protos" --python_out=. --grpc_python_out=. "$protos"/flotilla/v1/*.proto
