.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PORT ?= 5000

# Activate the environment for every program that a recipe or a DVC stage starts.
export VIRTUAL_ENV := $(abspath $(VENV))
export PATH := $(abspath $(BIN)):$(PATH)
# Switch off the telemetry of DVC and MLflow.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
# Where this is set, every process compiles all modules that it imports: half of the time of a small stage.
unexport PYTHONDONTWRITEBYTECODE

# Columns that `make exps` hides: files, and metrics that only a report needs.
UNSEEN := .*\.(py|j2|json|csv|npy|safetensors|zip)$$|(Created|State|Executor|num_.*|flagged\..*|val\.(?!kept_accuracy$$).*|test\.(?!accuracy$$|loss$$).*)$$

# What the shipped model is trained with, besides params.yaml: a better network, and augmentation for images framed and lit
# otherwise than those of the data set. PRETRAINED_DATA is for its card.
PRETRAINED_PARAMS := batch_size=128 lr=0.001 weight_decay=0.5 train.mixup=0.2 train.network=resnet10 \
  $(addprefix train.augment.,scale=0.25 translate=0.10 translate_height=0.10 rotate=15 grey=0.2 contrast=0.4 brightness=0.3)
PRETRAINED_DATA := An extract of the Kaggle data set cashutosh/gender-classification-dataset, drawn from its Training folder.

# A worker a core, a file of tests at a time: its fixtures are made once.
SIDE_BY_SIDE := --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: help setup repro exps ui test test-rest test-slow test-ui test-services test-lowest screenshots pretrained lint format deps lock clean

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## Make .venv with the locked dependencies (about a minute, 6 GB)

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(PYTHON) is older than Python 3.11; use another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo 'make: installing the locked packages into $(VENV): 6 GB, a minute or more'
	$(PYTHON) -m venv $(VENV)
	awk '/^[^ ]/ { is_uv = /^uv==/ } is_uv' requirements.lock | $(PIP) install --require-hashes -r /dev/stdin
	@# uv installs in parallel but ignores pip's configuration (such as a package index); pip is the fallback.
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock \
	  || $(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

repro: setup  ## Run the pipeline (dvc repro); only changed stages run again
	@dvc repro

exps: setup  ## Compare the experiments in the terminal: params that differ, metrics, best first
	@# Without a pager, DVC fits the table to the terminal and cuts the very columns that differ.
	@DVC_PAGER=cat dvc exp show --only-changed --hide-workspace --precision 4 --sort-by val.kept_accuracy \
	  --sort-order desc --drop '$(UNSEEN)'

ui: setup  ## Open the run store in the MLflow UI (PORT=5000)
	@gender-classifier ui --port $(PORT)

test: setup  ## Run the tests (7 minutes on 2 cores)
	@python -m pytest $(SIDE_BY_SIDE)

test-rest: setup  ## Run the other three suites side by side (17 minutes, needs chromium and postgresql)
	@python -m pytest $(SIDE_BY_SIDE) -m "slow or ui or services"

test-slow: setup  ## Kill, stop and starve real trainings; DVC experiments; real faces if they are there
	@python -m pytest -m slow

test-ui: setup  ## Sweep six experiments and look at them in the MLflow UI; use the pages (4 minutes, needs chromium)
	@python -m pytest -m ui

screenshots: repro  ## Update the docs' screenshots of the MLflow UI and the pages (6 minutes, needs chromium)
	@python -m pytest -m ui --screenshots docs/images tests/test_sweep.py tests/serve/test_page.py \
	  tests/serve/test_review_page.py

test-services: setup  ## Use real servers, MLflow's and PostgreSQL (4 minutes, needs postgresql)
	@python -m pytest -m services

test-lowest:  ## Run the tests on the lowest direct dependencies that pyproject.toml allows, in .venv-lowest (needs uv)
	uv venv --quiet --clear --python $(PYTHON) .venv-lowest
	uv pip install --quiet --python .venv-lowest --resolution lowest-direct -e '.[pipeline,serve,dev]'
	PATH="$(CURDIR)/.venv-lowest/bin:$$PATH" .venv-lowest/bin/python -m pytest $(SIDE_BY_SIDE)

pretrained: setup  ## Train the model that the package ships, and write it (SOURCE=/path/to/faces.zip)
	@test -n '$(SOURCE)' || { echo 'make: no data set; use: make pretrained SOURCE=/path/to/faces.zip' >&2; exit 1; }
	dvc exp run -S 'source=$(SOURCE)' $(addprefix -S ,$(PRETRAINED_PARAMS))
	python -m gender_classifier.pipeline.pretrained --data '$(PRETRAINED_DATA)'

lint: setup  ## Check style and types (ruff, mypy --strict)
	@ruff check .
	@ruff format --check .
	@mypy

format: setup  ## Fix style
	@ruff check --fix .
	@ruff format .

deps: setup  ## Write each stage's code dependencies into dvc.yaml
	@python -m gender_classifier.pipeline.deps

lock: setup  ## Update requirements.lock
	uv pip compile pyproject.toml --extra pipeline --extra serve --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock

clean:  ## Remove the environment and tool caches (data, models and runs stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
