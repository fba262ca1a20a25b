# Everything happens inside the checkout: the environment is .venv/, the data is .memvault/.
# Needs make and Python >= 3.11 with venv, nothing else. `make help` lists what there is.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := config/requirements

# The first Python that is new enough; override with `make run PYTHON=/path/to/python3`.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(firstword $(foreach python,$(CANDIDATES),$(if $(shell $(python) -c 'import sys; print("yes" if sys.version_info >= (3, 11) else "")' 2>/dev/null),$(python))))

# Arguments for the command behind a target: `make run ARGS="--port 9000"`, `make test PYTEST_ARGS="-n 0 tests/unit"`.
ARGS ?=
# A file's tests run in one process, so that what they share is made once.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

# pip keeps no cache outside the checkout, asks nothing, and follows no setting that would install elsewhere.
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PIP_NO_INPUT := 1
export PIP_USER := 0
unexport PYTHONPATH PYTHONHOME

# Wheels only, each with its hash: nothing is built and no package's code runs while it is installed.
# Readable by others whatever the umask: under root, Postgres runs as another user.
INSTALL := umask 022 && $(BIN)/python -m pip install --quiet --no-deps --require-hashes --only-binary :all: -r

# The environment is made anew if it was interrupted (.unfinished), was made in another folder (scripts carry
# absolute paths), or lost its Python.
VENV_STATE := $(shell [ ! -e $(VENV)/.unfinished ] && [ "$$(cat $(VENV)/.made 2>/dev/null)" = "$$(pwd -P)" ] && \
	$(BIN)/python -c '' 2>/dev/null && echo sound)
ifneq ($(VENV_STATE),sound)
.PHONY: $(VENV)/.made
endif

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: $(VENV)/.installed ## Set up what is missing and serve on 127.0.0.1:8080
	@exec $(BIN)/memvault serve $(ARGS)

.PHONY: test
test: test-deps ## Install what the tests need, then run them
	@$(MAKE) --no-print-directory test-run

.PHONY: test-deps
test-deps: $(VENV)/.test-deps ## Install what the tests need (the only step that uses the network)

.PHONY: test-run
test-run: ## Run the tests without a network; PYTEST_ARGS overrides how
	@[ -x $(BIN)/pytest ] || { echo "The tests are not set up: make test-deps"; exit 1; }
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-offline
test-offline: ## The same where the kernel has taken the network away but for loopback (Linux)
	@[ -x $(BIN)/pytest ] || { echo "The tests are not set up: make test-deps"; exit 1; }
	@$(BIN)/python -m tests.offline $(MAKE) --no-print-directory test-run

.PHONY: check
check: test-deps ## Lint, format, types, import floors, docs in step
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(MAKE) --no-print-directory check-docs

.PHONY: check-docs
check-docs: test-deps ## Compare the documentation with the code (its examples are run by `make test`)
	@$(BIN)/python -m pytest -q tests/docs --ignore tests/docs/test_examples.py

.PHONY: fmt
fmt: test-deps ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: bench
bench: test-deps ## Run the benchmarks; ARGS goes to them
	@$(BIN)/python -m bench $(ARGS)

.PHONY: sbom
sbom: $(VENV)/.sbom ## Write dist/memvault.cdx.json: what the image holds, as CycloneDX
	@echo "Installing what is shipped into $(VENV)/shipped, to list it"
	@rm -rf $(VENV)/shipped && $(BIN)/python -m venv --without-pip $(VENV)/shipped
	@$(subst -m pip,-m pip --python $(VENV)/shipped/bin/python,$(INSTALL)) $(REQUIREMENTS)/runtime.txt
	@$(BIN)/python -m pip --python $(VENV)/shipped/bin/python install --quiet --no-deps --no-build-isolation --no-index .
	@mkdir -p dist
	@$(VENV)/sbom/bin/cyclonedx-py environment $(VENV)/shipped/bin/python --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/memvault.cdx.json
	@rm -rf $(VENV)/shipped
	@echo "dist/memvault.cdx.json"

.PHONY: lock
lock: ## Regenerate the hashed requirement files (needs uv); UPGRADE=--upgrade takes newer versions
	@command -v uv >/dev/null || { echo "make lock needs uv on the PATH"; exit 1; }
	$(COMPILE) --all-extras --group model --group build -o $(REQUIREMENTS)/runtime.txt
	$(COMPILE) --group model --group build --group test -c $(REQUIREMENTS)/runtime.txt -o $(REQUIREMENTS)/test.txt
	echo cyclonedx-bom | uv pip compile --quiet - $(HASHED) -o $(REQUIREMENTS)/sbom.txt
	echo mem0ai==1.0.11 | $(COMPILE_CLIENT) -o $(REQUIREMENTS)/client-1.0.11.txt
	echo mem0ai==0.1.118 | $(COMPILE_CLIENT) -o $(REQUIREMENTS)/client-0.1.118.txt
	echo mem0-cli==0.2.13 | $(COMPILE_CLIENT) -o $(REQUIREMENTS)/client-cli-0.2.13.txt

HASHED = $(UPGRADE) --universal --python-version 3.11 --only-binary :all: --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"
COMPILE = uv pip compile --quiet pyproject.toml $(HASHED)
COMPILE_CLIENT = uv pip compile --quiet - --excludes $(REQUIREMENTS)/client-excludes.in $(HASHED)

.PHONY: clean
clean: ## Remove the environment and the caches; the data in .memvault/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -not -path './.memvault/*' -prune -exec rm -rf {} +

$(VENV)/.made:
	@[ -n "$(PYTHON)" ] || { echo "Memvault needs Python 3.11 or newer; none of $(CANDIDATES) is. Set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Memvault needs Python 3.11 or newer; $(PYTHON) is older or does not start. Set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module; install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@pwd -P > $@

$(VENV)/.installed: $(VENV)/.made $(REQUIREMENTS)/runtime.txt pyproject.toml
	@echo "Installing what Memvault runs on into $(VENV) (the first time takes a minute or two)"
	@touch $(VENV)/.unfinished
	@$(INSTALL) $(REQUIREMENTS)/runtime.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index -e .
	@rm $(VENV)/.unfinished
	@touch $@

# What makes the list of packages has an environment of its own, so that it lists none of its own.
$(VENV)/.sbom: $(VENV)/.made $(REQUIREMENTS)/sbom.txt
	@rm -rf $(VENV)/sbom && $(BIN)/python -m venv --without-pip $(VENV)/sbom
	@$(subst -m pip,-m pip --python $(VENV)/sbom/bin/python,$(INSTALL)) $(REQUIREMENTS)/sbom.txt
	@touch $@

$(VENV)/.test-deps: $(VENV)/.installed $(VENV)/.sbom $(REQUIREMENTS)/test.txt $(wildcard $(REQUIREMENTS)/client-*.txt) $(wildcard tests/clients/npm/*) \
		tests/deploy/helm_binary.py
	@echo "Installing what the tests need into $(VENV)"
	@touch $(VENV)/.unfinished
	@$(INSTALL) $(REQUIREMENTS)/test.txt
	@$(BIN)/python tests/clients/python_clients.py
	@$(BIN)/python tests/clients/npm_packages.py
	@$(BIN)/python tests/deploy/helm_binary.py
	@rm $(VENV)/.unfinished
	@touch $@
