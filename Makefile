# Two commands do everything on a fresh machine that has Rust: `make demo` and `make test`.

# Runs a program with the right to make network namespaces.
RUNNER := $(CURDIR)/tests/run-privileged
HOST := $(shell rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export CARGO_TARGET_$(HOST)_RUNNER := $(RUNNER)

.PHONY: bench demo demo-cluster lint prepare prepare-tests release test

## Shows policies deciding about real packets, in network namespaces of its own.
demo: prepare
	cargo build --release --locked
	cargo run --release --locked --package tests --bin demo

## The same with a real API server.
demo-cluster: prepare
	cargo build --release --locked
	cargo run --release --locked --package tests --bin demo -- --cluster

## What packets and changes cost, beside the bars that podfence sets itself.
bench: prepare
	cargo build --release --locked
	cargo run --release --locked --package tests --bin bench

## Formatting, lints, licences and every test.
test: prepare-tests lint
	cargo build --release --locked
	cargo test --release --workspace --locked

## The files of a release, in target/release-files: docs/release.md.
release: prepare
	release/build

lint: prepare
	cargo fmt --all -- --check
	cargo clippy --release --workspace --all-targets --locked -- --deny warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	else echo "licences are not checked: cargo-deny is not installed"; fi

prepare:
	@tests/prepare

prepare-tests:
	@tests/prepare tests
