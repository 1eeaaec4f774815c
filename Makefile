# `make demo` and `make test` are all a fresh machine needs: each makes .venv from the lock file first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SEEDS ?= 500
STORY_SEEDS ?= 3
SEED_START ?=
FLOOD_SECONDS ?= 60
CLIENTS ?= 16
MATRIX_OUT ?= matrix.txt

.PHONY: demo test check bench flood mass-exit dying simulate matrix coverage format clean

demo: $(STAMP)
	$(BIN)/cromford demo --clients 4

# Else every process that a test starts, and both workers, compile again all that they import.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal tests

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 0 tests/tidy

bench: $(STAMP)
	$(BIN)/python -m bench

flood: $(STAMP)
	$(BIN)/python -m tests.flood --seconds $(FLOOD_SECONDS)

mass-exit: $(STAMP)
	$(BIN)/python -m tests.mass_exit --clients $(CLIENTS)
	$(BIN)/python -m tests.mass_exit --clients $(CLIENTS) --at-deadline
	$(BIN)/python -m tests.mass_exit --clients $(CLIENTS) --zero-fee

dying: $(STAMP)
	$(BIN)/python -m tests.dying

simulate: $(STAMP)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(if $(SEED_START),--seed-start $(SEED_START))
	$(BIN)/python -m tests.simulation.stories --seeds $(STORY_SEEDS) $(if $(SEED_START),--seed-start $(SEED_START))

matrix: $(STAMP)
	$(BIN)/python -m tests.matrix --out $(MATRIX_OUT) --seed $(or $(SEED_START),0) --jobs 2

coverage: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 0 tests/test_changed.py tests/test_shelf.py tests/codec tests/crypto tests/bitcoin tests/signing tests/factory tests/channel tests/invoice tests/wire tests/wallet tests/protocol tests/watch tests/simulation
	$(BIN)/coverage combine
	$(BIN)/coverage report --include 'src/cromford/changed.py,src/cromford/shelf.py,src/cromford/codec/*,src/cromford/crypto/*,src/cromford/bitcoin/*,src/cromford/signing/*,src/cromford/factory/*,src/cromford/channel/*,src/cromford/invoice/*,src/cromford/wire/*,src/cromford/wallet/*,src/cromford/protocol/*,src/cromford/watch/*,src/cromford/effects.py'

format: $(STAMP)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed: Cromford needs Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1): Cromford needs Python 3.11 or newer (make PYTHON=/path/to/python3.11)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: this Python cannot make a virtual environment: install python3-venv (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
