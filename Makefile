# Two commands do all set-up on a fresh machine with Python 3.11 to 3.13: `make demo` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help demo test test-full coverage check mutants fuzz kills machine docs clean

# The first interpreter that runs and is of a version we support; PYTHON=... overrides.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
  $$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= demo

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 is on the PATH. Install one, or run: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@# Torch first and alone: a plain pip takes it from disk where a machine has it there.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## Draw a cohort, run the whole pipeline on it, end with a page (OUT=demo)
	@$(BIN)/lamella demo --out $(OUT)

test: $(STAMP)  ## All tests that are quick enough for each commit
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal --durations 10

test-full: $(STAMP)  ## The slow tests too
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal --durations 10 -m "not gpu and not network"

coverage: $(STAMP)  ## Which lines of src no quick test reaches; at least 90% must be reached
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal --cov=lamella --cov-report=term-missing:skip-covered --cov-fail-under=90

check: $(STAMP)  ## Style, types, import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q -p no:xdist src docs README.md --doctest-glob='*.md'

mutants: $(STAMP)  ## Plant faults one at a time; each must turn a test red
	@$(BIN)/python tests/mutants.py

fuzz: $(STAMP)  ## 20,000 mutants of every kind of file (about half an hour); fuzz.json has the record
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.campaign --n 20000 --out fuzz.json --docs docs/reliability.md

kills: $(STAMP)  ## Verbs killed and stopped at random moments and run again (about an hour); kills.json has the record
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.kills.campaign --kills 20 --stops 8 --out kills.json

machine: $(STAMP)  ## Verbs under full disks, I/O errors and odd environments (hours; root for all); machine.json has the record
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.machine.campaign --out machine.json

docs: $(STAMP)  ## Make again what the docs take from the program: CLI reference, troubleshooting, pictures
	@$(BIN)/python docs/make.py

clean:  ## Remove the environment and the demo
	rm -rf $(VENV) $(OUT)
