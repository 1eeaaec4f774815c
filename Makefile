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
CROWD ?= 512 1024
FUZZ_SECONDS ?= 60
FUZZ_PACKAGES := .fuzz-packages
FUZZ_STAMP := $(FUZZ_PACKAGES)/.installed
DOCS_PACKAGES := .docs-packages
DOCS_STAMP := $(DOCS_PACKAGES)/.installed
EXAMPLES ?= 20
CONTRACT_PACKAGES := .contract-packages
CONTRACT_STAMP := $(CONTRACT_PACKAGES)/.installed
BROWSER_PACKAGES := .browser-packages
BROWSER_STAMP := $(BROWSER_PACKAGES)/.installed
MATRIX_OUT ?= matrix.txt
KILLS ?= 100
SEED ?=
SAMPLE ?= 0
# A sample is bounded in time; all mutants take hours.
MINUTES ?= $(if $(filter-out 0,$(SAMPLE)),30,100000)

.PHONY: demo test tables check bench crowd flood mass-exit dying drill simulate matrix fuzz contract browser mutants samples coverage format docs wheels man clean

demo: $(STAMP)
	$(BIN)/cromford demo --clients 4

# What is tidy is for `check`. Without bytecode, every process that a test starts, and both workers,
# would compile again all that they import.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal tests --ignore tests/tidy

# Tests whose tables are too long for every run, whole; `make test` plays a sample of each.
tables: export PYTHONDONTWRITEBYTECODE :=
tables: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal tests --whole -m "sampled or sampled_file"

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 0 tests/tidy

bench: $(STAMP)
	$(BIN)/python -m bench

# The promise that a factory has up to 1,024 clients, kept over sockets. Some minutes.
crowd: $(STAMP)
	$(BIN)/python -m bench.crowd $(foreach clients,$(CROWD),--clients $(clients)) $(if $(SEED),--seed $(SEED))

flood: $(STAMP)
	$(BIN)/python -m tests.flood --seconds $(FLOOD_SECONDS)

mass-exit: $(STAMP)
	$(BIN)/python -m tests.mass_exit --clients $(CLIENTS)
	$(BIN)/python -m tests.mass_exit --clients $(CLIENTS) --at-deadline
	$(BIN)/python -m tests.mass_exit --clients $(CLIENTS) --zero-fee

dying: $(STAMP)
	$(BIN)/python -m tests.dying

drill: $(STAMP)
	$(BIN)/python -m tests.drill --points
	$(BIN)/python -m tests.drill --kills $(KILLS) $(if $(SEED),--seed $(SEED))

simulate: $(STAMP)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(if $(SEED_START),--seed-start $(SEED_START))
	$(BIN)/python -m tests.simulation.stories --seeds $(STORY_SEEDS) $(if $(SEED_START),--seed-start $(SEED_START))

matrix: $(STAMP)
	$(BIN)/python -m tests.matrix --out $(MATRIX_OUT) --seed $(or $(SEED_START),0) --jobs 2

# The fuzzer lies beside the environment: not every Python that runs the tests has wheels of it.
fuzz: $(FUZZ_STAMP)
	PYTHONPATH=$(FUZZ_PACKAGES) $(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# Asks running daemons everything that their OpenAPI documents allow, and much that they do not.
contract: $(CONTRACT_STAMP)
	PYTHONPATH=$(CONTRACT_PACKAGES) $(BIN)/python -m tests.contract --examples $(EXAMPLES) $(if $(SEED),--seed $(SEED))

# The page in a real browser, with real daemons; screenshots are in .screenshots. Skipped, saying so,
# where there is no Chromium (Debian, Ubuntu: apt-get install chromium).
browser: export PYTHONDONTWRITEBYTECODE :=
browser: $(BROWSER_STAMP)
	PYTHONPATH=$(BROWSER_PACKAGES) $(BIN)/pytest -n 0 tests/browser

mutants: $(STAMP)
	$(BIN)/python -m tests.mutants --sample $(SAMPLE) $(if $(SEED),--seed $(SEED)) --minutes $(MINUTES) $(foreach room,$(ROOM),--room $(room))

# A little of each of the long ones, always the same: what a change has to pass beside `make test`.
samples: $(STAMP) browser
	$(BIN)/python -m tests.drill --points --sample 3 --kills 10 --seed 1
	$(BIN)/python -m tests.simulation --seeds 40 --seed-start 0
	CROMFORD_SEED=0 $(BIN)/python -m tests.matrix --brief --sample 12 --jobs 2
	$(BIN)/python -m tests.mutants --sample 60 --seed 1 --minutes 3

coverage: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 0 --whole-files tests/test_changed.py tests/test_shelf.py tests/codec tests/crypto tests/bitcoin tests/signing tests/factory tests/channel tests/invoice tests/wire tests/wallet tests/protocol tests/planning tests/picture tests/watch tests/simulation
	$(BIN)/coverage combine
	$(BIN)/coverage report --include 'src/cromford/changed.py,src/cromford/shelf.py,src/cromford/codec/*,src/cromford/crypto/*,src/cromford/bitcoin/*,src/cromford/signing/*,src/cromford/factory/*,src/cromford/channel/*,src/cromford/invoice/*,src/cromford/wire/*,src/cromford/wallet/*,src/cromford/protocol/*,src/cromford/planning/*,src/cromford/picture/*,src/cromford/watch/*,src/cromford/effects.py'

format: $(STAMP)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Strictly: what Sphinx warns of fails. It needs no network, once its packages are there.
docs: $(DOCS_STAMP)
	PYTHONPATH=$(DOCS_PACKAGES) $(BIN)/python -m sphinx --quiet -W --keep-going -b html -c docs -d $(DOCS_PACKAGES)/doctrees . site
	cp site/README.html site/index.html
	@echo "file://$(CURDIR)/site/index.html"

# All that `pip install --no-index --find-links wheels cromford` needs, on machines like this one: our
# wheel, and of the locked ones, by their hashes, those that it asks for.
wheels: $(STAMP)
	rm -rf wheels .wheels
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock -d .wheels
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w wheels .
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-index --find-links .wheels -d wheels wheels/cromford-*.whl
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps -r requirements-pipx.lock -d wheels
	rm -rf .wheels

man: $(STAMP)
	$(BIN)/python -m cromford.cli.man build/man

clean:
	rm -rf wheels .wheels build site $(VENV) $(FUZZ_PACKAGES) $(DOCS_PACKAGES) $(CONTRACT_PACKAGES) $(BROWSER_PACKAGES) .screenshots .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis .mutants .import_linter_cache .coverage*

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed: Cromford needs Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1): Cromford needs Python 3.11 or newer (make PYTHON=/path/to/python3.11)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: this Python cannot make a virtual environment: install python3-venv (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

$(FUZZ_STAMP): requirements-fuzz.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps --upgrade --target $(FUZZ_PACKAGES) -r requirements-fuzz.lock
	@touch $(FUZZ_STAMP)

$(DOCS_STAMP): requirements-docs.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps --upgrade --target $(DOCS_PACKAGES) -r requirements-docs.lock
	@touch $(DOCS_STAMP)

$(CONTRACT_STAMP): requirements-contract.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps --upgrade --target $(CONTRACT_PACKAGES) -r requirements-contract.lock
	@touch $(CONTRACT_STAMP)

$(BROWSER_STAMP): requirements-browser.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps --upgrade --target $(BROWSER_PACKAGES) -r requirements-browser.lock
	@touch $(BROWSER_STAMP)
