# `make demo` and `make test` need nothing but Python 3.11 and make: each sets up its own .venv first.
PYTHON ?= python3
VENV := .venv
TESTS := tests
BIN := $(VENV)/bin
SCALE ?=

.PHONY: environment demo test check docs slow clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    simulate, train, compare, ship: the point of Modalift in minutes (SCALE=tiny for a rehearsal)"
	@echo "make test    the tests"
	@echo "make check   ruff, mypy, doctests, import arrows; README, tutorials and notebook run"
	@echo "make docs    the documentation site, into site/"
	@echo "make slow    the tests that take a minute or more"

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "== setting up $(VENV) with the pinned libraries (about two minutes, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Modalift needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

environment: $(VENV)/.ready

demo: $(VENV)/.ready
	@$(BIN)/modalift demo $(if $(SCALE),--scale $(SCALE))

test: $(VENV)/.ready
	@echo "== tests"
	@$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile $(TESTS)  # a process per core

slow: $(VENV)/.ready
	@$(BIN)/python -m pytest -m slow tests

check: $(VENV)/.ready
	@echo "== ruff"; $(BIN)/ruff check src tests benchmarks docs/hooks
	@echo "== mypy"; $(BIN)/mypy
	@echo "== doctests"; $(BIN)/python -m pytest --doctest-modules src/modalift -q
	@echo "== import arrows; README, tutorials and notebook"
	@$(BIN)/python -m pytest -q -n auto tests/contracts/test_arrows.py tests/contracts/test_docs.py tests/test_notebooks.py
	@echo "check: all clean"

docs: $(VENV)/.ready
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # --quiet would hide warnings, and count none
	@echo "the site is in site/: open site/index.html, or \`$(BIN)/mkdocs serve\`, which also searches"

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache
