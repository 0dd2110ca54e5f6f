# `make demo` and `make test` set themselves up; everything else builds on the same environment.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help demo test soak lint types docs notebooks conformance oldest bench clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ibidem needs Python 3.11 or later; try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "setting up $(VENV) (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip -qq --disable-pip-version-check install -e '.[dev]'
	@touch $(READY)

demo: $(READY)  ## a support agent, without ibidem, with it and in a new process (ARGS=--live lets Claude decide)
	@$(BIN)/python -m ibidem.demo $(ARGS)

test: $(READY)  ## the test-suite (ARGS=... goes to pytest)
	@$(BIN)/python -m pytest $(ARGS)

soak: $(READY)  ## the long counts of the requirements, at full length
	@IBIDEM_SOAK=1 $(BIN)/python -m pytest -m soak $(ARGS)

lint: $(READY)  ## ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY)  ## mypy strict and pyright
	@$(BIN)/mypy && $(BIN)/mypy tests/typing && $(BIN)/pyright --pythonpath $(BIN)/python

docs: $(READY)  ## runs every example of README.md and docs/
	@$(BIN)/python -m pytest tests/test_docs.py $(ARGS)

notebooks: $(READY)  ## executes every notebook
	@$(BIN)/python -m pytest tests/test_notebooks.py $(ARGS)

conformance: $(READY)  ## the frameworks' own test-suites, run through ibidem
	@$(BIN)/python tests/conformance/run.py $(ARGS)

oldest:  ## the test-suite against the oldest supported frameworks
	@PYTHON=$(PYTHON) bash .ci/oldest

bench: $(READY)  ## every benchmark
	@for each in benchmarks/*.py; do echo "== $$each"; $(BIN)/python $$each || exit 1; done

clean:  ## removes what the other commands made
	@rm -rf $(VENV) .venv-oldest .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
