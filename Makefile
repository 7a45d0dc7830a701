# The tasks of people, hooks and CI, by one name each. `make` lists them.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs format pipeline report manifests image kind cluster push ui lock clean cml path

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# By what it is made of, not by when, so that an environment that was kept somewhere is known again.
MADE_OF := requirements/setup.txt requirements/dev.txt pyproject.toml
READY := $(VENV)/ready-$(shell cat $(MADE_OF) | git hash-object --stdin)
ON_PATH := PATH="$(CURDIR)/$(BIN):$$PATH"
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --fork-strategy fewest --python-version 3.11 --no-header --upgrade

help: ## List the tasks
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the environment in .venv, from hash-locked requirements
$(READY):
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

demo: setup ## Play the whole loop on this machine, under load; with CLUSTER=1 in the local cluster of kubectl
	@$(BIN)/python -m demo $(if $(CLUSTER),--cluster $(CLUSTER))

test: setup ## Run every test
	@$(BIN)/python -m pytest --numprocesses 3 --dist worksteal

check: setup ## Lint, format and type-check, as the pre-commit hooks do
	@$(ON_PATH) pre-commit run --all-files

docs: setup ## Build the documentation as a site in build/site, and check its links
	@$(BIN)/zensical build --strict --clean

format: setup ## Put the code in its standard form
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

pipeline: setup ## Bring data and champion here, run what has changed, and say the verdict
	@$(BIN)/dvc pull --quiet --allow-missing
	@$(ON_PATH) dvc repro
	@$(BIN)/slipway verdict

report: setup ## Write what a reviewer would see, as a page: build/report/report.html
	@$(BIN)/dvc pull --quiet --allow-missing
	@$(ON_PATH) dvc repro --quiet
	@$(BIN)/slipway report

manifests: setup ## Compile the alarms and the dashboard of this model into kustomize/components/monitoring/
	@$(BIN)/python -m slipway.monitoring.manifests

image: setup ## Build the image of the champion, and try it as a cluster would run it
	@$(BIN)/dvc pull --quiet champion.dvc
	@$(BIN)/slipway image build --tag trial
	@$(BIN)/slipway image smoke slipway:trial

kind: setup ## Load two releases of the champion, and metrics-server, into the kind cluster `slipway`
	@$(BIN)/dvc pull --quiet champion.dvc
	@$(BIN)/slipway image build --tag first
	@rm -rf build/second
	@git worktree add --quiet --force --detach build/second
	@cd build/second && git -c user.name=Slipway -c user.email=slipway@localhost commit --quiet --allow-empty --message Second
	@cp -RL champion build/second
	@cd build/second && $(CURDIR)/$(BIN)/slipway image build --tag second
	@git worktree remove --force build/second
	@kind load docker-image --name slipway slipway:first slipway:second
	@kubectl apply --kustomize tests/slipway/cluster/metrics-server

cluster: setup ## Try releases under load, in the cluster of KUBECONFIG, from SLIPWAY_IMAGE_A to SLIPWAY_IMAGE_B
	@SLIPWAY_CLUSTER="$${KUBECONFIG:?names the cluster}" $(BIN)/python -m pytest tests/slipway/cluster -rP

push: setup ## Push data, champion and the run-cache to the DVC remote
	@$(BIN)/dvc push --quiet --run-cache

ui: setup ## Open MLflow on what `slipway record` has written
	@$(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"

lock: setup ## Lock the requirements anew, to the newest versions that pyproject.toml allows
	@echo uv | $(COMPILE) - --output-file requirements/setup.txt
	@$(COMPILE) pyproject.toml --output-file requirements/serve.txt
	@$(COMPILE) pyproject.toml --extra train --output-file requirements/train.txt
	@$(COMPILE) pyproject.toml --extra train --extra dev --output-file requirements/dev.txt

clean: ## Remove all that was made, except the environment
	@rm -rf build .cache mlruns mlflow.db .pytest_cache .mypy_cache .ruff_cache .hypothesis

# In workflows only.
cml:
	@npm install --global --ignore-scripts --no-fund --no-audit --silent @dvcorg/cml@0.20.6

path:
	@echo "$(CURDIR)/$(BIN)" >> "$$GITHUB_PATH"
