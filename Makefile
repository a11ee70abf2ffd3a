# Knobs: set them on the command line, e.g. `make demo EVENTS=1000000`.
EVENTS ?= 100000#         events of `make demo`
BENCH_EVENTS ?= 5000000#  events of `make bench`
CONFIG ?= conf/local.yaml#  settings of `make demo`
WORKERS ?= 2#             test processes; each has a Spark session (2 GB) and a broker of its own; 0: none beside pytest
SEED ?= 1#                events and random moments of `make test-faults`
QUICK ?=#                 1: `make test-faults` with the JVM of `make test`; times of recovery are neither taken nor held to then
ARGS ?=#                  more options of the command, e.g. `make test ARGS="-k kafka -x"`
PYTHON ?=#                Python to make .venv with; empty: python3.11 and newer ones are looked for
UV ?= uv==0.13.*#         resolver that `make lock` installs for itself
UPGRADE ?=#               `make lock UPGRADE=--upgrade` takes newer versions

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults quick-jvm check lint types schemas format bench setup lock clean
BIN := .venv/bin
LOCK := build/lock/bin

help: ## Print this help
	@echo 'Usage: make TARGET [KNOB=value ...]'; echo; echo 'Targets:'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@echo; echo 'Knobs:'
	@awk -F ' [?]=|# *' '/^[A-Z_]+ [?]=.*#/ { printf "  %-13s %-16s %s\n", $$1, $$2, $$3 }' Makefile

demo: setup ## Run the whole path on a real broker, and show that every event is accounted for
	@$(BIN)/lakehouse demo --config $(CONFIG) --events $(EVENTS) $(ARGS)

test: setup quick-jvm ## Run the tests, but for the long runs of test-faults
	@SPARK_SUBMIT_OPTS='$(QUICK_JVM)' $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -o faulthandler_timeout=1230 $(ARGS)

test-faults: setup $(if $(QUICK),quick-jvm) ## Run the fault suite and every long test; write docs/reliability.md
	@SPARK_SUBMIT_OPTS='$(if $(QUICK),$(QUICK_JVM))' $(BIN)/python -m pytest tests -p tests.faults.report --seed $(SEED) --timeout 1800 \
	  -m 'faults or case or mutant or control' $(ARGS)

# With classes from an archive a JVM of Spark starts in two thirds of the time; see tests/class_archive.py.
QUICK_JVM = -XX:SharedArchiveFile=$(CURDIR)/build/spark.jsa -Xlog:disable
quick-jvm: setup
	@[ build/spark.jsa -nt build/jars/.stamp ] || $(BIN)/python -m tests.class_archive build/spark.jsa

check: lint types schemas test ## Do what CI does: lint, types, event schemas, tests

lint: setup ## Check style, formatting, and which room imports which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-cache

types: setup ## Check types
	@$(BIN)/mypy

schemas: setup ## Check that no version of the event schema breaks the one before it
	@$(BIN)/lakehouse schema check --config $(CONFIG)

format: setup ## Format the code and mend what the linter can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: setup ## Measure every stage against a bare consumer and a DuckDB peer; write docs/performance.md
	@$(BIN)/python -m benchmarks --events $(BENCH_EVENTS) $(ARGS)

setup: ## Make .venv and build/jars, where they are missing or out of date
	@PYTHON='$(strip $(PYTHON))' scripts/setup.sh

lock: ## Resolve requirements/*.in into lock files with hashes
	@test -x $(LOCK)/uv || { $(or $(strip $(PYTHON)),python3) -m venv build/lock && $(LOCK)/pip install -q '$(strip $(UV))'; }
	@cd requirements && for name in build runtime dev; do \
	  ../$(LOCK)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    --no-emit-find-links $(UPGRADE) $$([ $$name = dev ] && echo -c runtime.txt -c build.txt) $$name.in -o $$name.txt || exit 1; done

clean: ## Remove what the set-up and the tools made; the lake in .lakehouse stays
	rm -rf .venv build jvm/*/target *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.lakehouse/*' -prune -exec rm -rf {} +
