# Everything happens in .venv, from the hashes in the lock files; a second run of any target reuses it.
# `make run` installs only what running needs; the other targets install the development tools, too.

PYTHON  ?= python3
SHELL   := /bin/bash
# Written whatever the environment says: a process that compiles all that it imports starts three times as slowly.
export PYTHONDONTWRITEBYTECODE =
# One more than there are cores: many a test waits for something.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2); [ $$n -gt 3 ] && n=3; echo $$((n + 1)))
BIN     := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install run check test test-all lint format lock clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## .venv with everything, exactly as locked

run: .venv/.runnable ## the whole of Naka on this machine; ARGS="..." goes to `naka up`
	@exec $(BIN)/naka up $(ARGS)

lint: install ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## lint, then the tests that start no server, without slow ones; ARGS="..." goes to pytest
	@exec $(BIN)/pytest -q -n 2 --dist each --max-worker-restart 0 --by-folder -o console_output_style=classic -m "not server" --short $(ARGS)

TEST = $(BIN)/pytest -n $(WORKERS) --dist loadgroup --durations=15

test: lint ## lint, then the tests, without slow ones and further cases of those that need a server
	@exec $(TEST) --short $(ARGS)

test-all: lint ## lint, then every test in all its cases, before a release; ARGS="..." goes to pytest
	@exec $(TEST) $(ARGS)

format: install ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --custom-compile-command 'make lock' --quiet

lock: install ## compile the locks again (UPGRADE=1 for newer versions): everything, `make run`, the image
	$(COMPILE) --all-extras $(if $(UPGRADE),--upgrade) --output-file requirements.lock
	rm -f requirements.run.lock requirements.runtime.lock
	$(COMPILE) --extra run --constraints requirements.lock --no-annotate --output-file requirements.run.lock
	$(COMPILE) --extra otel --constraints requirements.lock --no-annotate --output-file requirements.runtime.lock

clean: ## forget .venv and caches; the data of `make run` stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || \
	  { echo "Naka needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $$($(PYTHON) -V 2>&1): make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --without-pip .venv

# PYTHON's own pip, where it can install elsewhere (22.3): putting one into .venv takes five seconds.
.venv/bin/pip: | .venv/bin/python
	@if found=$$($(PYTHON) -c 'import pip, sys; assert [*map(int, pip.__version__.split(".")[:2])] >= [22, 3]; print(sys.executable)' 2>/dev/null); \
	then printf '#!/bin/sh\nexec "%s" -m pip --python "%s" "$$@"\n' "$$found" "$(CURDIR)/$(BIN)/python" > $@ && chmod +x $@; \
	else $(BIN)/python -m ensurepip --default-pip >/dev/null || \
	  { echo "$(PYTHON) has no pip of 22.3 or newer, and no ensurepip (on Debian: apt install python3-pip python3-venv)" >&2; exit 1; }; fi

# uv installs a lock in seconds. pip takes a minute, and does it where uv cannot run, or where pip has an index of its own:
# uv does not read pip's configuration. pip's lines become a counter; bytecode is compiled when a module is first imported.
PIP = PYTHONUNBUFFERED=1 $(BIN)/pip install --disable-pip-version-check --no-compile
UV  = VIRTUAL_ENV=$(CURDIR)/.venv UV_NO_CONFIG=1 $(BIN)/uv pip install --quiet --system-certs
define install_lock
	@echo "installing $(1)"
	@set -o pipefail; { ! $(BIN)/pip config list | grep '\.index-url=' >/dev/null && \
	  awk '/^[^ ]/ {wanted = /^uv==/} wanted' requirements.lock > .venv/uv.lock && \
	  $(PIP) --quiet --require-hashes -r .venv/uv.lock && $(UV) --require-hashes -r $(1); } || \
	  $(PIP) --progress-bar off --require-hashes -r $(1) | awk '\
	  /^Collecting/ {printf "\r%s: package %d", "$(1)", ++n; fflush()} \
	  /^Installing/ {printf "\n%s: unpacking\n", "$(1)"; fflush()}'
endef
define install_naka
	@$(UV) --no-deps --no-build-isolation -e . || $(PIP) --quiet --no-deps --no-build-isolation -e .
endef

.venv/.locked: requirements.lock | .venv/bin/pip
	$(call install_lock,requirements.lock)
	@touch $@

.venv/.installed: pyproject.toml .venv/.locked
	$(call install_naka)
	@touch $@ .venv/.runnable

.venv/.runnable: pyproject.toml requirements.run.lock | .venv/bin/pip
	$(call install_lock,requirements.run.lock)
	@$(BIN)/python -c 'import anthropic' >/dev/null 2>&1 & # compiles two thirds of all modules, on a core that is idle
	$(call install_naka)
	@touch $@
