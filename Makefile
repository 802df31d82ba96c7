.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 5000

# The activated environment, for every program that a recipe or a DVC stage starts.
export VIRTUAL_ENV := $(abspath $(VENV))
export PATH := $(abspath $(BIN)):$(PATH)
# Neither tool phones home from here.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup repro test lint format ui lock clean

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## Make .venv with the locked dependencies (about 3 minutes, 6 GB)

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "make: $(PYTHON) is older than Python 3.10; name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

repro: setup  ## Run the pipeline (dvc repro); only what changed runs again
	@dvc repro

test: setup  ## Run the tests
	@python -m pytest

lint: setup  ## Check style and types (ruff, mypy --strict)
	@ruff check .
	@ruff format --check .
	@mypy

format: setup  ## Mend style
	@ruff check --fix .
	@ruff format .

ui: setup  ## Open the run store in the MLflow UI (PORT=5000)
	@echo "MLflow UI: http://127.0.0.1:$(PORT) (Ctrl-C stops it)"
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1 --host 127.0.0.1 --port $(PORT)

lock:  ## Resolve requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --extra pipeline --extra dev --universal --python-version 3.10 \
	  --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock

clean:  ## Remove the environment and tool caches (data, models and runs stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
