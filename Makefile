# Skerry: `make help` lists the targets. As root, on Debian or Ubuntu.

SHELL := /bin/sh
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/sbin:/sbin
export SKERRY_BIN_DIR := $(CURDIR)/target/bin

WORKLOADS ?= $(CURDIR)/.work/workloads
# Programs of another version of Docker.
OTHER_ENGINE := $(CURDIR)/.work/other-engine
BENCH := $(or $(CARGO_TARGET_DIR),target)/release

.DEFAULT_GOAL := help
.PHONY: help setup build test faults demo workloads lint fuzz bench bench-delta bench-reconstruct bench-rank bench-pull check-aarch64 check-decoder test-slow conditions engine-upgrade footprint load sim sim-breaks mutants clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## check what the machine needs, install what is missing
	@scripts/setup

build: setup ## server, agent and CLI as they ship, into target/bin
	@scripts/build

.PHONY: other-engine
other-engine: setup
	@test -x $(OTHER_ENGINE)/dockerd || scripts/other-engine $(OTHER_ENGINE) || echo "without another engine: its tests are skipped" >&2

test: setup other-engine ## what must hold at every change; needs root, Docker and podman. Agent as it ships, server and CLI with the compiler's checks
	@scripts/build-for-tests
	SKERRY_BIN_DIR=$(CURDIR)/target/checked SKERRY_OTHER_ENGINE=$(OTHER_ENGINE) cargo test --locked --workspace --no-fail-fast

faults: build other-engine ## faults that take minutes each: kills at every step, full disks, the network conditions
	cargo test --locked -p skerry-tests --test e2e --no-fail-fast -- --ignored --test-threads 1 --nocapture
	SKERRY_OTHER_ENGINE=$(OTHER_ENGINE) cargo test --locked -p skerry-steps -- --ignored --test-threads 1 --nocapture

demo: build ## two versions of an application over a link that is cut
	@cargo run --locked --quiet --release -p skerry-tests --bin demo

workloads: setup ## the real image pairs S2 and S3, into $WORKLOADS
	@docker version >/dev/null || { echo "the Docker engine does not answer; start it: systemctl start docker" >&2; exit 1; }
	python3 tests/workloads/build.py --out $(WORKLOADS) S2 S3

lint: ## format, clippy without a warning, licences and bans
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --manifest-path fuzz/Cargo.toml -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check; else echo "cargo-deny is not installed: deny.toml was not checked"; fi

bench: build workloads ## bytes over the wire for the workload pairs, with the peers' figures
	SKERRY_WORKLOADS=$(WORKLOADS) cargo test --locked --release -p skerry-tests --test workloads -- --ignored --nocapture --skip every_pair

bench-delta: bench-workloads ## bundles beside other tools on the real pairs: PAIRS="S2 S3", TOOLS="rdiff zstd"
	@scripts/peers
	@cargo build --locked --release -p skerry-bench
	$(BENCH)/skerry-bench delta --workloads $(WORKLOADS) --work .work/bench --page docs/bench $(TOOLS:%=--tool %) $(PAIRS)

bench-reconstruct: build bench-workloads ## memory of the agent's process that makes an image, for every pair: PAIRS="S2 S3"
	SKERRY_WORKLOADS=$(WORKLOADS) SKERRY_PAIRS="$(PAIRS)" cargo test --locked --release -p skerry-tests --test workloads -- --ignored --nocapture every_pair_in_the_agent

bench-rank: bench-workloads ## the base that is chosen beside the best one: TARGETS="appa_s2 appb_old"
	@cargo build --locked --release -p skerry-bench
	$(BENCH)/skerry-bench rank --workloads $(WORKLOADS) --work .work/bench --page docs/bench $(TARGETS)

bench-pull: build ## docker pull beside Skerry over links with faults, half an hour: SKERRY_PULL_MB=100 SKERRY_PULL_SLOW_MB=30 SKERRY_PULL_CUT_S=60
	@scripts/peers docker-registry
	@SKERRY_PULL_PAGE=$(CURDIR)/docs/bench/pull.md cargo run --locked --quiet --release -p skerry-tests --bin pull

.PHONY: bench-workloads
bench-workloads: setup
	python3 tests/workloads/build.py --missing --out $(WORKLOADS) $(PAIRS:first=S1)

check-aarch64: bench-workloads ## bundles applied by code for aarch64, under qemu: PAIRS="S2 S3"
	@scripts/check-aarch64 $(WORKLOADS) $(PAIRS)

check-decoder: ## the fixed bundles, streams and index by a second decoder, which knows the format pages alone
	@scripts/second-decoder

fuzz: setup ## foreign bytes into everything that reads them, so many seconds each: FUZZ=patch FUZZ_S=60
	scripts/fuzz $(or $(FUZZ),all) $(or $(FUZZ_S),60)

test-slow: setup ## members over 2 GiB and layers over 4 GiB, some minutes
	cargo test --locked --release -p skerry-delta --features slow --test large

conditions: build ## network conditions of the field, with their table: SKERRY_CUT_S=600 SKERRY_OFFLINE_S=3600 for longer ones
	@mkdir -p .work && rm -f .work/conditions.md
	SKERRY_TABLE=$(CURDIR)/.work/conditions.md cargo test --locked -p skerry-tests --test e2e network:: -- --include-ignored --test-threads 1 --nocapture
	@cat .work/conditions.md

engine-upgrade: build ## allocations under an engine that becomes another version of Docker, from another Debian release; one with containerd's store
	@scripts/other-engine $(OTHER_ENGINE)
	SKERRY_UPGRADE=1 SKERRY_OTHER_ENGINE=$(OTHER_ENGINE) cargo test --locked -p skerry-tests --test e2e -- engine:: store:: --nocapture

footprint: build ## memory, size and idle traffic of the agent against SPECIFICATION.md
	cargo test --locked -p skerry-tests --test footprint -- --nocapture
	cargo test --locked -p skerry-tests --test e2e alone_reboot::ten_allocations -- --nocapture

load: build ## the server with 10,000 nodes that ask once a minute: its memory and processor time
	cargo run --locked --quiet --release -p skerry-tests --bin load

sim: ## whole lives of a fleet in virtual time: SEEDS=10000, or SEED=K for one life with its story
	@cargo run --locked --quiet --release -p skerry-sim -- $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),300) --first $(or $(FIRST),0))

sim-breaks: ## deliberate breaks of reconciler, ledger, acceptance and fetch, each of which the lives must find
	@scripts/sim-breaks

mutants: ## deliberate mistakes that the tests must find: PART="reconcile transfer ledger fetch", SHARD=K/N; goes on after a stop
	@for part in $(or $(PART),all); do scripts/mutants $$part $(SHARD) || exit; done

clean: ## all that was built
	cargo clean
	rm -rf .work
