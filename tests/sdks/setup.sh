#!/bin/sh
# Installs the SDK readers below .tools/sdks at the repository's top: a venv for Python, node_modules for Node,
# an executable for Go, classes and jars for Java; and beside them what examples/ has for Python and Go, with the code that
# is made of the protos. Without arguments: all of them. What is installed already, from the same files, is left alone.
set -eu

sources=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$sources/../.." && pwd)
target=$top/.tools/sdks
mkdir -p "$target"

# One at a time: tests of several processes may ask for the same reader at once.
exec 9>"$target/.lock"
flock 9

checksum() {
    case $1 in
        example-*) (cd "$top" && find "examples/${1#example-}" proto/proto -type f -not -path '*/gen/*' | sort | xargs cat) ;;
        *) (cd "$sources/$1" && find . -maxdepth 1 -type f | sort | xargs cat) ;;
    esac | cksum
}

install_python() {
    python3 -m venv --clear "$target/python"
    "$target/python/bin/pip" install --quiet --disable-pip-version-check --no-deps \
        --requirement "$sources/python/requirements.txt"
    cp "$sources/python/reader.py" "$target/python/"
}

install_node() {
    mkdir -p "$target/node"
    cp "$sources/node/package.json" "$sources/node/package-lock.json" "$sources/node/reader.mjs" "$target/node/"
    (cd "$target/node" && npm ci --silent --no-audit --no-fund --ignore-scripts)
}

install_go() {
    mkdir -p "$target/go"
    (cd "$sources/go" && go build -mod=readonly -trimpath -o "$target/go/reader" .)
}

# Maven is asked here only: the reader runs on what it has copied.
install_java() {
    rm -rf "$target/java"
    mkdir -p "$target/java/classes"
    mvn --quiet --batch-mode --file "$sources/java/pom.xml" \
        org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies \
        "-DoutputDirectory=$target/java/jars"
    javac -proc:none -cp "$target/java/jars/*" -d "$target/java/classes" "$sources"/java/*.java
}

install_example_python() {
    python3 -m venv --clear "$target/example-python"
    "$target/example-python/bin/pip" install --quiet --disable-pip-version-check --no-deps \
        --requirement "$top/examples/python/requirements.txt"
    PATH="$target/example-python/bin:$PATH" "$top/examples/python/generate.sh" "$target/example-python"
    cp "$top/examples/python/lifecycle.py" "$target/example-python/"
}

install_example_go() {
    BUF=${BUF:-$top/.tools/venv/bin/buf} "$top/examples/go/generate.sh"
    mkdir -p "$target/example-go"
    (cd "$top/examples/go" && go build -mod=readonly -trimpath -o "$target/example-go/lifecycle" .)
}

for sdk in "${@:-python node go java example-python example-go}"; do
    # The default is one word of six names.
    for name in $sdk; do
        stamp="$target/$name.installed"
        wanted=$(checksum "$name")
        if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
            continue
        fi
        rm -f "$stamp"
        "install_$(echo "$name" | tr - _)" >&2
        echo "$wanted" >"$stamp"
    done
done
