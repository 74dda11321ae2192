# Spotproof. Each target makes what it needs; nothing but make and Python has to be there.
#   make demo        the main job: train, be reclaimed twice, resume, compare (under 3 minutes once installed)
#   make test        lint, types, import rules and the test suite (under 10 minutes once installed)
#   make test-full   the long fault and kill campaigns as well
#   make check       ruff, mypy, import-linter
#   make bench       measurements, each beside its rivals
#   make clean       remove .venv and everything that was made
PYTHON ?= python3
export PYTHON
BIN := .venv/bin

.PHONY: demo test test-full check bench clean
.DELETE_ON_ERROR:

.venv/.demo-installed: pyproject.toml constraints.txt scripts/setup
	@scripts/setup demo
	@touch $@

.venv/.dev-installed: pyproject.toml constraints.txt scripts/setup
	@scripts/setup dev
	@touch $@ .venv/.demo-installed

demo: .venv/.demo-installed
	@$(BIN)/spotproof demo

check: .venv/.dev-installed
	@echo "ruff format"; $(BIN)/ruff format --check --quiet .
	@echo "ruff check"; $(BIN)/ruff check --quiet .
	@echo "mypy --strict"; $(BIN)/mypy
	@echo "import rules"; $(BIN)/lint-imports --no-logo

test: check
	@$(BIN)/python -m pytest -m "not slow and not aws"

test-full: check
	@$(BIN)/python -m pytest -m "not aws" --timeout 1800

bench: .venv/.dev-installed
	@for name in save_stall memory restore overhead goodput; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit; done

clean:
	rm -rf .venv .spotproof .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist src/*.egg-info
