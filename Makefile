# The tasks of people, hooks and CI, by one name each. `make` lists them.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format pipeline ui lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --fork-strategy fewest --python-version 3.11 --no-header --upgrade

help: ## List the tasks
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the environment in .venv, from hash-locked requirements
$(READY): requirements/setup.txt requirements/dev.txt pyproject.toml
	@echo "Setting up $(VENV), once; it takes a minute or two, most of it downloads."
	@$(PYTHON) -c 'import sys; sys.exit("Slipway needs Python 3.11 to 3.14; name one with `make PYTHON=...`." if not (3, 11) <= sys.version_info < (3, 15) else 0)'
	@echo "  1 of 3  the environment and its installer"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/setup.txt
	@echo "  2 of 3  $$(grep -c == requirements/dev.txt) locked packages"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/dev.txt
	@echo "  3 of 3  this project"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Play the loop: judge the data of today, take in a delivery, judge again
	@$(BIN)/slipway demo

test: setup ## Run every test
	@$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: setup ## Lint, format and type-check, as the pre-commit hooks do
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pre-commit run --all-files

format: setup ## Put the code in its standard form
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

pipeline: setup ## Bring data and champion here, run what has changed, and say the verdict
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc pull --quiet
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@$(BIN)/slipway verdict

ui: setup ## Open MLflow on what `slipway record` has written
	@$(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"

lock: setup ## Lock the requirements anew, to the newest versions that pyproject.toml allows
	@echo uv | $(COMPILE) - --output-file requirements/setup.txt
	@$(COMPILE) pyproject.toml --output-file requirements/serve.txt
	@$(COMPILE) pyproject.toml --extra train --output-file requirements/train.txt
	@$(COMPILE) pyproject.toml --extra train --extra dev --output-file requirements/dev.txt

clean: ## Remove all that was made, except the environment
	@rm -rf build mlruns mlflow.db .pytest_cache .mypy_cache .ruff_cache .hypothesis
