# Every target works from a fresh checkout on Debian; scripts/setup.sh installs what is missing.
SHELL := /bin/bash
CARGO ?= cargo
# What the simulation plays.
SEEDS ?= 20000
FROM ?= 1
THREADS ?= 2
# How long and from which seed chaos breaks things.
MINUTES ?= 2
SEED ?= 1
# Properties are tried with the same cases every time, so that what fails is the change; another number draws others.
export PROPTEST_RNG_SEED ?= 1
# What every test that starts Tarantool starts: another version's program by its path.
export TARANTOOL ?= tarantool
# All but the simulation. Its core can be broken on purpose, and nothing else compiles with that one: cargo builds one core
# for all that a command names, so the simulation has commands of its own.
AGENT := -p tarsec -p tarsec-core -p tarsec-harness
# What the demo, the benchmark and chaos start as the agent.
export TARSEC_BIN ?= $(CURDIR)/target/release/tarsec

.DEFAULT_GOAL := help
.PHONY: help build programs setup test sim mutants model chaos chaos-short demo bench lint clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install Tarantool, Consul and what else the tests need
	scripts/setup.sh
	@$(TARANTOOL) --version | sed -n 's/^/runs with: /;1p'

build: ## build the release binary, target/release/tarsec
	$(CARGO) build --release --locked --bin tarsec

test: setup ## run all tests, against real Consul and real Tarantool; TARANTOOL=path of another version's program
	$(CARGO) test $(AGENT) --locked -- --test-threads=2
	$(CARGO) test --profile sim -p tarsec-sim --locked -- --test-threads=2

sim: ## play SEEDS seeds (20000) from FROM (1) on in a simulated world, on THREADS threads (2)
	$(CARGO) run --profile sim --locked -p tarsec-sim --bin sim -- --seeds $(SEEDS) --from $(FROM) --threads $(THREADS)

mutants: ## break the core on purpose, one rule at a time, and see after how many seeds the simulation says so
	$(CARGO) run --profile sim --locked -p tarsec-sim --bin sim -- mutants --seeds $(SEEDS) --threads $(THREADS)

chaos: setup programs ## random faults from SEED (1) on a real cluster for about MINUTES (2): one master at a time, nothing synchronous lost
	target/release/chaos --minutes $(MINUTES) --seed $(SEED) --sync-loss $(SYNC_LOSS)

# What `make test` has built already: nothing else has the same features of all dependencies.
chaos-short: setup ## a minute of chaos with the tests' build; part of CI
	$(CARGO) test $(AGENT) --locked --no-run
	TARSEC_BIN=$(CURDIR)/target/debug/tarsec target/debug/chaos --minutes 1 --seed $(SEED)

model: ## search every world of the core that one fault leads to, with two agents and with three; part of test
	$(CARGO) test --profile sim --locked -p tarsec-sim --test model -- --nocapture --test-threads=1

# Agent and programs in one go, or their dependencies would be compiled once for each's choice of features.
programs: ## build the release binary with the demo, the benchmark and chaos
	$(CARGO) build --release --locked -p tarsec -p tarsec-harness --bins

demo: setup programs ## kill and freeze masters, kill an agent, live; under a minute
	target/release/demo

bench: setup programs ## changes of hands stage by stage, and what an agent costs; RUNS, RUNS_LOST, SWITCHOVERS, RUNS_LEADER, IDLE_SECONDS (0: leave out), RUNS_VSHARD with VSHARD_ROOT, LARGE_GIB, SKIP_LARGE=1
	target/release/bench

lint: ## formatting, clippy, docs, shell scripts; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(AGENT) --all-targets --locked -- -D warnings
	$(CARGO) clippy -p tarsec-sim --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps $(AGENT) --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps -p tarsec-sim --locked
	for script in scripts/*.sh .ci/run; do bash -n "$$script" || exit; done

clean: ## remove everything that was built
	$(CARGO) clean
