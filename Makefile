# Spotproof. Each target makes what it needs; nothing but make and Python has to be there.
#   make demo        the main job: train, be reclaimed twice, resume, compare (under 3 minutes once installed)
#   make test        lint, types, import rules and the test suite (a quarter of an hour once installed, on two cores)
#   make test-full   the long fault and kill campaigns as well
#   make test-sdkv3  a managed spot job of the SageMaker Python SDK v3 (v2 is in make test), in an environment of its own
#   make test-oldest the tests of exact resumes, with the oldest supported lightning and torchmetrics
#   make check       ruff, mypy, import-linter
#   make bench       measurements, each beside its rivals, into docs/performance.md (BENCH_FLAGS=--quick: only that it runs;
#                    BENCH_FLAGS='--traces FOLDER', a copy of github.com/skypilot-org/spot-traces: a published table as well)
#   make clean       remove .venv and everything that was made
PYTHON ?= python3
export PYTHON
BIN := .venv/bin

.PHONY: demo test test-full test-sdkv3 test-oldest check bench clean
.DELETE_ON_ERROR:

.venv/bin/python:
	@scripts/venv

.venv/.demo-installed: pyproject.toml constraints.txt scripts/setup scripts/venv | .venv/bin/python
	@scripts/setup demo
	@touch $@

.venv/.dev-installed: pyproject.toml constraints.txt scripts/setup scripts/venv | .venv/bin/python
	@scripts/setup dev
	@touch $@ .venv/.demo-installed

# Beside mypy, which takes one core: else each worker of the tests compiles what it imports. (Some packages carry files that
# are not for this Python.)
.venv/.compiled: .venv/.dev-installed
	@$(BIN)/python -m compileall -qq .venv/lib >/dev/null || true
	@touch $@

demo: .venv/.demo-installed
	@$(BIN)/spotproof demo

check: .venv/.dev-installed
	@echo "ruff format"; $(BIN)/ruff format --check --quiet .
	@echo "ruff check"; $(BIN)/ruff check --quiet .
	@echo "mypy --strict"; $(BIN)/mypy
	@echo "import rules"; $(BIN)/lint-imports --no-logo

.venv-sdkv2/.installed .venv-sdkv3/.installed: .venv-sdk%/.installed: scripts/sdk scripts/sdk%.txt | .venv/bin/python
	@scripts/sdk $*
	@touch $@

# A file's tests stay on one worker: many share a server or a process that is slow to start. In the order of the files,
# because the longest waits, those of the SageMaker SDK, are in few tests and come early so. One worker more than there
# are cores, because many tests wait for jobs and servers.
WORKERS := $(shell cores=$$(nproc); echo $$((cores < 4 ? cores + 1 : 4)))
test:
	@$(MAKE) --no-print-directory -j2 check .venv-sdkv2/.installed .venv/.compiled
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not aws and not sdkv3"

test-full: check .venv-sdkv2/.installed
	@$(BIN)/python -m pytest -m "not aws and not sdkv3" --timeout 1800

test-sdkv3: .venv/.dev-installed .venv-sdkv3/.installed
	@$(BIN)/python -m pytest -m sdkv3

.venv-oldest/.installed: .venv/.dev-installed pyproject.toml scripts/oldest
	@scripts/oldest
	@touch $@

test-oldest: .venv-oldest/.installed
	@.venv-oldest/bin/python -m pytest -m "not slow" tests/unit/lightning tests/faults/test_exact_resume.py tests/faults/test_loops.py

bench: .venv/.dev-installed
	@for name in save_stall memory restore seek overhead goodput local_platform plan; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py --json .spotproof/bench/$$name.json $(BENCH_FLAGS) || exit; done
	@$(BIN)/python benchmarks/report.py .spotproof/bench

clean:
	rm -rf .venv .venv-oldest .venv-sdkv2 .venv-sdkv3 .spotproof .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist src/*.egg-info
