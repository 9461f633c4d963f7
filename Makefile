# ts-forecast: every command that a newcomer needs. `make help` explains them.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
TEST_WORKERS ?= 2
UI ?= 1
# pip takes the newest torch, several GB of CUDA with it, unless it is there already.
TORCH := $(shell grep -E '^torch==' constraints.txt)

.PHONY: help
help: ## Explain the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: $(VENV)/.installed ## Set everything up, forecast six quarters, serve the UI (UI=0: do not serve)
	@$(BIN)/ts-forecast demo $(if $(filter 0,$(UI)),--no-ui)

.PHONY: dev
dev: $(VENV)/.installed ## Serve the UI on the embedded PostgreSQL, or on DATABASE_URL
	@$(BIN)/ts-forecast dev

.PHONY: test
# In the folders' order: sorted by their number of tests, files of few tests and many minutes come last.
test: $(VENV)/.installed-dev ## Set everything up and run the tests
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: test-long
test-long: $(VENV)/.installed-dev ## What takes minutes: weeks and a random year of files, more faults (WEEKS_SEED, WEEKS_ROUNDS)
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m long -s tests

.PHONY: check
check: lint lint-sql types imports generated test ## Exactly what CI checks

.PHONY: lint
lint: $(VENV)/.installed-dev ## Style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: lint-sql
lint-sql: $(VENV)/.installed-dev ## Locks and rewrites in the SQL that the migrations emit
	@set -o pipefail; $(BIN)/alembic upgrade head --sql 2>/dev/null \
	  | $(BIN)/squawk --stdin-filepath migrations.sql

.PHONY: types
types: $(VENV)/.installed-dev ## Types of the three packages
	@$(BIN)/mypy

.PHONY: imports
imports: $(VENV)/.installed-dev ## Who may import whom
	@$(BIN)/lint-imports

.PHONY: generated
generated: $(VENV)/.installed-dev ## Whether generated files are current
	@$(BIN)/python -m ts_forecast.pipeline_file | diff -u docs/pipeline.schema.json - \
	  || { echo "docs/pipeline.schema.json is not current: run make format"; exit 1; }

.PHONY: format
format: $(VENV)/.installed-dev ## Format the code and write generated files
	@$(BIN)/ruff check --fix -q . || true
	@$(BIN)/ruff format .
	@$(BIN)/python -m ts_forecast.pipeline_file > docs/pipeline.schema.json

.PHONY: constraints
constraints: ## Pin what a fresh environment holds; to upgrade a package, edit its line before
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT \
	  && $(PYTHON) -m venv "$$fresh" \
	  && "$$fresh/bin/pip" install -q "$(TORCH)" \
	  && "$$fresh/bin/pip" install -q -c constraints.txt -e '.[dev,ray,benchmarks]' \
	  && "$$fresh/bin/pip" freeze --exclude-editable | sed -E 's/\+cpu$$//' | LC_ALL=C sort -f > "$$fresh/pins" \
	  && cp "$$fresh/pins" constraints.txt

.PHONY: clean
clean: ## Remove the environment and caches; data, models and the database stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing (some minutes, once) …"
	@$(BIN)/pip install -q "$(TORCH)"
	@$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@
