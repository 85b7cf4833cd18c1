# Skerry: `make help` lists the targets. As root, on Debian or Ubuntu.

SHELL := /bin/sh
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/sbin:/sbin
export SKERRY_BIN_DIR := $(CURDIR)/target/bin

WORKLOADS ?= $(CURDIR)/.work/workloads

.DEFAULT_GOAL := help
.PHONY: help setup build test demo workloads lint bench footprint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## check what the machine needs, install what is missing
	@scripts/setup

build: setup ## server, agent and CLI as they ship, into target/bin
	@scripts/build

test: build ## everything that must hold; needs root and Docker
	cargo test --locked --workspace

demo: build ## two versions of an application over a link that is cut
	@cargo run --locked --quiet --release -p skerry-tests --bin demo

workloads: setup ## the real image pairs S2 and S3, into $WORKLOADS
	@docker version >/dev/null || { echo "the Docker engine does not answer; start it: systemctl start docker" >&2; exit 1; }
	python3 tests/workloads/build.py --out $(WORKLOADS) S2 S3

lint: ## format, clippy without a warning, licences and bans
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check; else echo "cargo-deny is not installed: deny.toml was not checked"; fi

bench: build workloads ## bytes over the wire for the workload pairs, with the peers' figures
	SKERRY_WORKLOADS=$(WORKLOADS) cargo test --locked --release -p skerry-tests --test workloads -- --ignored --nocapture

footprint: build ## memory, size and idle traffic of the agent against SPECIFICATION.md
	cargo test --locked -p skerry-tests --test footprint -- --nocapture

clean: ## all that was built
	cargo clean
	rm -rf .work
