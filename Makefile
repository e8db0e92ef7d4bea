# Everything is installed into .venv at the versions of constraints.txt. `make PYTHON=python3.12 test` takes another Python.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# Small models lose far more than they gain by several threads, most of all beside other busy processes.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format docs clean

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED)  ## Install diled with its development tools into .venv

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(INSTALLED)  ## Train and compare small models on digits, and write demo/report.html
	$(BIN)/diled demo

test: lint  ## Check style and types, then run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## Mend what the linter can, and format
	$(BIN)/ruff check --fix-only --exit-zero .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## Write the generated parts of docs/ anew
	$(BIN)/python docs/generate.py

clean:  ## Remove caches, build products and the demo (not .venv, not runs/)
	rm -rf build dist demo lightning_logs .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
