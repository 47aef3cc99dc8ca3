# Everything happens in .venv, from the hashes in requirements.lock; a second run of any target reuses it.

PYTHON  ?= python3
# One more than there are cores: many a test waits for something.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2); [ $$n -gt 3 ] && n=3; echo $$((n + 1)))
BIN     := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install run test lint format lock clean

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## .venv with everything, exactly as locked

run: install ## the whole of Naka on this machine; ARGS="..." goes to `naka up`
	@exec $(BIN)/naka up $(ARGS)

lint: install ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## lint, then every test; ARGS="..." goes to pytest
	@exec $(BIN)/pytest -n $(WORKERS) --dist loadgroup $(ARGS)

format: install ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --custom-compile-command 'make lock' --quiet

lock: install ## compile both locks again (UPGRADE=1 for newer versions): everything, and what the image holds
	$(COMPILE) --all-extras $(if $(UPGRADE),--upgrade) --output-file requirements.lock
	rm -f requirements.runtime.lock
	$(COMPILE) --extra otel --constraints requirements.lock --no-annotate --output-file requirements.runtime.lock

clean: ## forget .venv and caches; the data of `make run` stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || \
	  { echo "Naka needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $$($(PYTHON) -V 2>&1): make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "$(PYTHON) cannot make a venv (on Debian: apt install python3-venv)" >&2; exit 1; }

.venv/.locked: requirements.lock | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

.venv/.installed: pyproject.toml .venv/.locked
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
