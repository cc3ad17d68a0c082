# Each target works alone, from a clean clone, with nothing but Python 3.11 or newer.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Small models gain nothing from many threads, and threads that outnumber the free cores wait for each other: tests run in
# WORKERS processes of one thread each, all else in one process of two.
export OMP_NUM_THREADS ?= 2
WORKERS ?= 2
SOAK_SECONDS ?= 1800
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-all bench soak check clean

demo: $(VENV)/.ready  ## train two adapters on real data, swap, mix, merge, save and reload them
	$(BIN)/python examples/quickstart.py

test: $(VENV)/.ready  ## the whole test suite but for the slow part
	$(TEST)

test-all: $(VENV)/.ready  ## the slow tests too
	$(TEST) -m ""

bench: $(VENV)/.ready  ## every performance figure beside its peer's, from one run
	$(BIN)/python benchmarks/run.py

soak: $(VENV)/.ready  ## half an hour of requests while everything changes or fails; SOAK_SECONDS=600 for less
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak --seconds $(SOAK_SECONDS)

check: $(VENV)/.ready  ## style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build
