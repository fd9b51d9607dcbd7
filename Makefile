# `make demo` and `make test` need nothing but Python 3.11 and make: each sets up its own .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SCALE ?=

.PHONY: demo test check slow clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    simulate, train, compare, ship: the point of Modalift in minutes (SCALE=tiny for a rehearsal)"
	@echo "make test    the tests"
	@echo "make check   ruff, mypy, doctests, README commands, import arrows"
	@echo "make slow    the tests that take a minute or more"

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "== setting up $(VENV) with the pinned libraries (about two minutes, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Modalift needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(VENV)/.ready
	@$(BIN)/modalift demo $(if $(SCALE),--scale $(SCALE))

test: $(VENV)/.ready
	@echo "== tests"
	@$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile tests  # a process per core

slow: $(VENV)/.ready
	@$(BIN)/python -m pytest -m slow tests

check: $(VENV)/.ready
	@echo "== ruff"; $(BIN)/ruff check src tests benchmarks
	@echo "== mypy"; $(BIN)/mypy
	@echo "== doctests"; $(BIN)/python -m pytest --doctest-modules src/modalift -q
	@echo "== README commands and import arrows"; $(BIN)/python -m pytest -q tests/contracts/test_arrows.py tests/contracts/test_readme.py
	@echo "check: all clean"

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
