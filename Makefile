# Everything runs from .venv, which `make setup` builds from nothing and leaves alone when it is up to date.
PYTHON ?= $(shell for v in 3.12 3.13 3.11; do command -v python$$v >/dev/null 2>&1 && python$$v --version >/dev/null 2>&1 && { echo python$$v; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := constraints/cpu.txt
CPU_WHEELS := https://download.pytorch.org/whl/cpu
WORKSPACE ?= demo-workspace

.PHONY: help setup demo test lint serve lock clean
help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## build .venv from nothing (does nothing when it is up to date)

$(STAMP): $(LOCK) pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Python 3.11, 3.12 or 3.13 is needed; none is on PATH. Set PYTHON=/path/to/python."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "make: $(PYTHON) is $$($(PYTHON) --version); 3.11 to 3.13 is needed."; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) (about two minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(LOCK) 2>$(VENV)/pip.log \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --extra-index-url $(CPU_WHEELS) -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . 2>>$(VENV)/pip.log \
	  || { cat $(VENV)/pip.log; exit 1; }
	@touch $(STAMP)

demo: setup ## all stages on the embedded sample with the embedded models, then the server is queried
	@$(BIN)/causalneg demo --config configs/demo.yaml --workspace $(WORKSPACE)

test: setup ## the tests: fast ones side by side, then those that start Ray by twos, then one by one those that start vLLM
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not ray and not vllm" --numprocesses auto --dist loadfile
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "ray and not vllm" --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 20
	@$(BIN)/python -m pytest -m vllm --durations 20

lint: setup ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

serve: setup ## serve the demo's retriever on http://127.0.0.1:8000 until Ctrl-C
	@$(BIN)/causalneg serve --config configs/demo.yaml --workspace $(WORKSPACE)

lock: setup ## resolve constraints/cpu.txt anew from pyproject.toml
	@$(BIN)/python constraints/lock.py

clean: ## remove the environment, the demo's workspace and caches
	rm -rf $(VENV) $(WORKSPACE) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build
