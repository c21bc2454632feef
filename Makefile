# `make help` lists what there is. Everything may be repeated; what is done already takes no time.

export PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install run zero test test-all chaos lint services bench screenshots lock sbom audit check-fresh

help:
	@echo "make run       serve at http://localhost:3000 with an embedded MongoDB and sample data"
	@echo "make zero      run a zero-cache against it and show the rows that arrive"
	@echo "make test      lint, and every test but the slow ones"
	@echo "make test-all  lint, and every test"
	@echo "make check-fresh  follow README.md in a clean Debian, as root: make run, make zero, make test (half an hour; TESTS=)"
	@echo "make chaos     for half an hour, have everything fail while writers never stop (SEED=, SECONDS_OF_CHAOS=)"
	@echo "make bench     measure it against ceilings, into docs/benchmarks (half an hour; BENCH=--quick to see it work)"
	@echo "make screenshots  the admin's pages with the sample data, into docs/screenshots"
	@echo "make lint      ruff, mypy and the rules on imports"
	@echo "make lock      pin what requirements*.in and devtools/zero/package.json ask for, with hashes; then make sbom"
	@echo "make sbom      list licences in docs/licences.md, and all that runs in production in sbom.json"
	@echo "make audit     ask what vulnerabilities of the pinned packages are known (needs a network)"
	@echo "make install   the virtual environment alone ($(VENV))"

install: $(INSTALLED)

$(INSTALLED): requirements.txt requirements-tracing.txt requirements-dev.txt
	@sh devtools/system-packages.sh python3-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; name one with PYTHON=."; exit 1; }
	@test -x $(BIN)/pip || { echo "Making $(VENV) ..."; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing Python packages (about half a minute) ..."
	@$(BIN)/pip install --quiet --quiet --disable-pip-version-check --no-input --require-hashes -r requirements-dev.txt
	@touch $@

run: install
	@DEBUG=1 exec $(BIN)/python manage.py serve --sample-data

zero: install
	@sh devtools/system-packages.sh postgresql
	@exec $(BIN)/python -m devtools.zero

# What the tests run beside the Python packages: PostgreSQL, Redis, Chromium, Prometheus, nginx, curl, jq, and zero-cache
# and mongosh from npm.
services: install
	@sh devtools/system-packages.sh postgresql redis-server chromium prometheus nginx-light curl jq
	@$(BIN)/python -m devtools.node

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Three files at a time, since most of their time is waiting, those that take longest first.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: services lint
	$(PYTEST) -m "not slow" $(TESTS)

test-all: services lint
	@sh devtools/system-packages.sh debootstrap
	$(PYTEST) $(TESTS)

# TESTS= names what `make test` is to run there; with AS_ROOT=1 it is root who follows the README.
check-fresh: install
	@sh devtools/system-packages.sh debootstrap
	@$(if $(TESTS),TESTS='$(TESTS)') $(if $(AS_ROOT),AS_ROOT=1) $(BIN)/python -m devtools.fresh

SECONDS_OF_CHAOS ?= 1800

chaos: services
	$(BIN)/python -m tests.chaos --seconds $(SECONDS_OF_CHAOS) $(if $(SEED),--seed $(SEED))

bench: services
	$(if $(BENCH),,$(BIN)/python -m devtools.bench.mapping)
	$(BIN)/python -m devtools.bench $(BENCH)

screenshots: install
	@sh devtools/system-packages.sh chromium
	@$(BIN)/python -m devtools.screenshots

lock: install
	@$(BIN)/python -m devtools.dependencies lock

sbom: install
	@$(BIN)/python -m devtools.dependencies sbom

audit: install
	@$(BIN)/python -m devtools.dependencies audit
