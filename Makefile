# Every target works from a fresh checkout on Debian; scripts/setup.sh installs what is missing.
SHELL := /bin/bash
CARGO ?= cargo
# What the demo and the benchmark start as the agent.
export TARSEC_BIN ?= $(CURDIR)/target/release/tarsec

.DEFAULT_GOAL := help
.PHONY: help build setup test demo bench lint clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install Tarantool, Consul and what else the tests need
	scripts/setup.sh

build: ## build the release binary, target/release/tarsec
	$(CARGO) build --release --locked --bin tarsec

test: setup ## run all tests, against real Consul and real Tarantool
	$(CARGO) test --workspace --locked -- --test-threads=2

demo: setup build ## kill and freeze masters, kill an agent, live; under a minute
	$(CARGO) run --release --locked -p tarsec-harness --bin demo

bench: setup build ## changes of hands stage by stage, and what an agent costs; RUNS, RUNS_LOST, SWITCHOVERS, RUNS_LEADER, IDLE_SECONDS (0: leave out), LARGE_GIB, SKIP_LARGE=1
	$(CARGO) run --release --locked -p tarsec-harness --bin bench

lint: ## formatting, clippy, docs, shell scripts; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --workspace --locked
	for script in scripts/*.sh .ci/run; do bash -n "$$script" || exit; done

clean: ## remove everything that was built
	$(CARGO) clean
