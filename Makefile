# `make` lists what one can do. Needs only Python 3.11+ and make; everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check docs docs-serve format bench clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv and install the project with pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "evo-models needs Python 3.11 or newer; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## train the demo zoo, evolve it on a local Ray, print the table (demo/)
	$(BIN)/evo demo --dir demo

# Two files at a time: on two processors, a third makes the tests that start Ray wait for each other.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup ## run all tests
	$(PYTEST)

test-fast: setup ## run the tests that take less than ten seconds each
	$(PYTEST) -m 'not slow'

check: setup ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Material's notice about MkDocs 2 is no warning of ours; --strict makes errors of those that are.
docs: setup ## build the documentation into site/; site/index.html opens without a server
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: setup ## the documentation on http://127.0.0.1:8000, rebuilt as you write
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

format: setup ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## measure how fast it is (an hour), print the headlines of all results (benchmarks/results)
	$(BIN)/python benchmarks/against_mergekit_evolve.py
	$(BIN)/python benchmarks/birth.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/population.py
	$(BIN)/python benchmarks/racing.py
	$(BIN)/python benchmarks/where_time_goes.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/results.py

clean: ## remove .venv, caches and the demo's folder
	rm -rf .venv demo site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
