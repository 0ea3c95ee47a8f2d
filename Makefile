# Each target sets up what it needs; the first run installs into .venv, the next ones reuse it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test check dist bench docs soak fuzz interop-deps clean

run: $(STAMP) ## start a lookupd and a node on the default ports, data in .run/
	@mkdir -p .run
	@trap 'kill $$lookupd $$node 2>/dev/null; wait' EXIT; trap 'exit 0' INT TERM; \
	$(BIN)/pynsqlookupd --broadcast-address=127.0.0.1 & lookupd=$$!; \
	$(BIN)/pynsqd --broadcast-address=127.0.0.1 --data-path=.run --lookupd-tcp-address=127.0.0.1:4160 & node=$$!; \
	wait

test: $(STAMP) interop-deps ## run the tests
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/coverage report --include='pynsqd/wire/*,pynsqd/core/*' --fail-under=95

check: $(STAMP) ## lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

dist: $(STAMP) ## wheel and sdist in dist/, tried in environments of their own
	PYTHON=$(BIN)/python .ci/dist

bench: $(STAMP) ## the table of docs/performance.md, against the real nsqd where Go is there
	bench/peers/build.sh
	$(BIN)/python bench/run.py --rounds 5

docs: $(STAMP) ## docs/configuration.md from the options
	$(BIN)/python docs/generate_configuration.py

interop-deps: $(STAMP) ## the clients and brokers that the tests talk to, as far as node and Go are there
	tests/interop/setup.sh
	bench/peers/build.sh || [ "$$CI" != true ]

soak: $(STAMP) ## thousands of kill -9 under load; SEED and KILLS may be given
	$(BIN)/python -m tests.behaviour.kill_nine.run --kills $(or $(KILLS),3000) --seed $(or $(SEED),soak)

fuzz: $(STAMP) ## a million inputs for whatever reads bytes of strangers; RUNS, SEED, TARGETS and ROUNDS may be given
	$(BIN)/python -m tests.fuzz.run --runs $(or $(RUNS),1000000) --seed $(or $(SEED),1) $(TARGETS)
	$(BIN)/python -m tests.fuzz.crowd --rounds $(or $(ROUNDS),20000) --seed $(or $(SEED),1)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean: ## forget the environment and what the tools left
	rm -rf $(VENV) dist .run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .fuzz
