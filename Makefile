# What people and CI run. Everything here works on a fresh Debian or Ubuntu machine with rustup, gcc and make;
# what is missing is installed, or the exact line to run is printed and the target stops.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The targets share one build directory and two cores; cargo does the parallel work.
.NOTPARALLEL:

TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
TOOLS := $(TARGET_DIR)/tools
PREPARE := tests/scripts/prepare $(TOOLS)
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

# A tool built by `prepare` lies in TOOLS; one that is already on PATH and new enough is used as it is.
export PATH := $(TOOLS)/bin:$(PATH)

STATIC_RUSTFLAGS := -C target-feature=+crt-static
# Randomness as agent/src/randomness.rs has it: in an empty root, and on kernels without the system call. Then what makes the
# program an eighth smaller: no tables for unwinding, and places of addresses that are packed.
AGENT_RUSTFLAGS := $(STATIC_RUSTFLAGS) --cfg getrandom_backend=\"custom\" \
	-C link-arg=-Wl,-T,$(CURDIR)/agent/link.ld -C link-arg=-Wl,-z,pack-relative-relocs

# Further words for the bench: `--only inventory`, or `--hour` to watch the agent's memory for so long.
BENCH ?=

# The size of the fleet that `make fleet` plays, and for how long: all of it takes about 14 minutes at 10m.
N ?= 10000
TAKES ?= 10m

# How long each flood of `make flood` goes on.
FLOOD_TAKES ?= 90s

# How the static collector of images is built; tests take the test build's.
STATIC_PROFILE ?= release

# Seconds for each fuzz target.
FUZZ_SECONDS ?= 60
export FUZZ_SECONDS

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

.PHONY: test
test: ## Every test, then short forms of fuzz, bench and faults
	$(PREPARE) nextest fuzz nightly system engines guests hosts readers
	cargo build --workspace --bins --locked
	$(MAKE) agent
	$(MAKE) static-collector STATIC_PROFILE=dev
	cargo nextest run --workspace --locked
	cargo test --workspace --doc --locked
	$(MAKE) fuzz
	$(MAKE) bench-short
	$(MAKE) faults-short

.PHONY: check
check: ## Format, lints, licences and bans, documentation
	$(PREPARE) deny
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny --locked check --hide-inclusion-graph licenses bans sources
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

.PHONY: bench
bench: ## Measure what the README and the promises say, on the release build
	$(PREPARE) system engines hosts peers
	$(MAKE) agent
	cargo build --release --locked -p dunlin-agent -p dunlin-collector -p dunlin-tests --bins
	cargo run --release --locked -p dunlin-tests --bin dunlin-bench -- $(BENCH)

.PHONY: bench-short
bench-short: ## The same paths in a minute or two, on the test build: that they run, not what they cost
	cargo build --locked --workspace --bins
	cargo run --locked -p dunlin-tests --bin dunlin-bench -- --short
	cargo run --locked -p dunlin-tests --bin dunlin-fleet -- prove --short
	cargo run --locked -p dunlin-tests --bin dunlin-fleet -- overload --short

.PHONY: fleet
fleet: ## N simulated nodes (10000), some of them unruly, against a real collector through what fleets go through: each promise beside what it came to (as root)
	$(PREPARE) system
	cargo build --release --locked -p dunlin-collector -p dunlin-tests --bins
	cargo run --release --locked -p dunlin-tests --bin dunlin-fleet -- prove --nodes $(N) --takes $(TAKES) \
		--json $(TARGET_DIR)/fleet.json --markdown $(TARGET_DIR)/fleet.md

.PHONY: overload
overload: ## Twice and five times the frames that are promised, then less time than N nodes need (as root)
	$(PREPARE) system
	cargo build --release --locked -p dunlin-collector -p dunlin-tests --bins
	cargo run --release --locked -p dunlin-tests --bin dunlin-fleet -- overload --nodes $(N) --takes $(TAKES)

.PHONY: flood
flood: ## Bad input of every kind against a real collector beside a fleet of 2,000 that is to notice nothing (as root)
	$(PREPARE) system
	cargo build --release --locked -p dunlin-collector -p dunlin-tests --bins
	cargo run --release --locked -p dunlin-tests --bin dunlin-fleet -- flood --takes $(FLOOD_TAKES)

.PHONY: faults
faults: ## Kills, power cuts, full disks and failing fsync under load, with an oracle (as root)
	$(PREPARE) system
	cargo build --release --locked -p dunlin-agent -p dunlin-collector -p dunlin-tests --bins
	cargo run --release --locked -p dunlin-tests --bin dunlin-faults --

.PHONY: faults-short
faults-short: ## A few of each fault, on the test build
	$(PREPARE) system
	cargo build --locked --workspace --bins
	cargo run --locked -p dunlin-tests --bin dunlin-faults -- --short
	cargo run --locked -p dunlin-tests --bin dunlin-fleet -- flood --short

.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZ_SECONDS (60)
	$(PREPARE) fuzz nightly system
	tests/scripts/fuzz

.PHONY: docs
docs: ## Write the generated documents anew: the metric list, what rules read, the packaged configurations and the API
	cargo run -q --locked -p dunlin-shared --example metrics > docs/metrics.md.new
	mv docs/metrics.md.new docs/metrics.md
	cargo run -q --locked -p dunlin-shared --example rules > docs/rule-metrics.md.new
	mv docs/rule-metrics.md.new docs/rule-metrics.md
	cargo run -q --locked -p dunlin-agent --example reference > packaging/agent.toml.new
	mv packaging/agent.toml.new packaging/agent.toml
	cargo run -q --locked -p dunlin-collector --example reference > packaging/collector.toml.new
	mv packaging/collector.toml.new packaging/collector.toml
	cargo run -q --locked -p dunlin-collector --example openapi > docs/openapi.json.new
	mv docs/openapi.json.new docs/openapi.json

.PHONY: agent
agent: ## The static agent as it ships
	RUSTFLAGS="$(AGENT_RUSTFLAGS)" cargo build --locked --profile agent -p dunlin-agent --target $(HOST)
	@ls -l $(TARGET_DIR)/$(HOST)/agent/dunlin-agent

.PHONY: static-collector
static-collector: ## The collector as images have it: static, like the agent
	RUSTFLAGS="$(STATIC_RUSTFLAGS)" cargo build --locked --profile $(STATIC_PROFILE) -p dunlin-collector --bins --target $(HOST)

.PHONY: image
image: agent static-collector ## Container images of agent and collector, laid out in TARGET/image and built by docker
	packaging/image/build $(TARGET_DIR)/$(HOST)/agent/dunlin-agent $(TARGET_DIR)/$(HOST)/release $(TARGET_DIR)/image
	docker build -t dunlin-agent $(TARGET_DIR)/image/agent
	docker build -t dunlin-collector $(TARGET_DIR)/image/collector

.PHONY: demo
demo: ## A collector and an agent on this host with throw-away state, and what to try with them
	cargo build --locked -p dunlin-agent -p dunlin-collector --bins
	packaging/demo $(TARGET_DIR)/debug

.PHONY: deb
deb: agent ## The Debian packages, the tarball for hosts without dpkg and their checksums, into TARGET/deb
	cargo build --release --locked -p dunlin-collector --bins
	packaging/deb/build $(TARGET_DIR)/$(HOST)/agent/dunlin-agent $(TARGET_DIR)/release $(TARGET_DIR)/deb
	@ls -l $(TARGET_DIR)/deb

.PHONY: audit
audit: ## Known vulnerabilities in what we depend on (needs a network)
	$(PREPARE) deny
	cargo deny --locked check --hide-inclusion-graph advisories

.PHONY: clean-tools
clean-tools: ## Remove the cargo tools that `make` has built for itself
	rm -rf $(TOOLS)
