# `make demo` and `make test` need nothing first: they build the environment in .venv from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TRACKERS := $(VENV)/.trackers
LIT_PI := $(BIN)/lit-pi
DEMO := runs/demo
FAST := pytest --numprocesses logical --dist loadfile --no-loadscope-reorder -m 'not long'

# Nothing is written outside the clone, and nothing is looked up on the hub.
export LIT_PI_CACHE ?= $(CURDIR)/.cache
export HF_HOME ?= $(CURDIR)/.cache/huggingface
export HF_HUB_OFFLINE ?= 1
export MPLCONFIGDIR ?= $(CURDIR)/.cache/matplotlib

.PHONY: help demo test test-long test-oldest test-newest campaign campaign-quick lock lint clean

help:  ## Say what there is to make.
	@grep -E '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 26

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "lit_pi needs Python 3.11 or newer: make PYTHON=python3.11 ..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(TRACKERS): $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[trackers]'
	touch $@

demo: $(INSTALLED)  ## Extend a small model's context on this machine (under 5 minutes).
	rm -rf $(DEMO)
	$(LIT_PI) fit --config configs/experiment/demo_pretrain.yaml --trainer.default_root_dir $(DEMO)/pretrain
	$(LIT_PI) test --config configs/experiment/demo_evaluate.yaml --model.llm.path $(DEMO)/pretrain \
		--model.position configs/position/extrapolate.yaml --trainer.default_root_dir $(DEMO)/extrapolate
	$(LIT_PI) test --config configs/experiment/demo_evaluate.yaml --model.llm.path $(DEMO)/pretrain \
		--model.position configs/position/interpolate.yaml --trainer.default_root_dir $(DEMO)/interpolate
	$(LIT_PI) fit --config configs/experiment/demo_extend.yaml --trainer.default_root_dir $(DEMO)/interpolate-tuned
	$(LIT_PI) test --config configs/experiment/demo_evaluate.yaml --model.llm.path $(DEMO)/interpolate-tuned \
		--model.position configs/position/interpolate.yaml --trainer.default_root_dir $(DEMO)/interpolate-tuned
	$(LIT_PI) report $(DEMO)/extrapolate $(DEMO)/interpolate $(DEMO)/interpolate-tuned --output $(DEMO)/report
	$(BIN)/python benchmarks/demo_claims.py $(DEMO)
	@echo "Picture: $(DEMO)/report/standard_library-perplexity.png"
	@echo "Dashboards: $(BIN)/tensorboard --logdir $(DEMO)"

test: $(INSTALLED)  ## Run the tests (under 15 minutes on 2 slow cores).
	$(BIN)/$(FAST)

test-oldest test-newest: test-%:  ## Run them with the oldest and the newest packages (gigabytes).
	test -x $(VENV)-$*/bin/python || $(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/pip install --quiet --upgrade $(addprefix --constraint ,$(wildcard .ci/$*.txt)) --editable '.[dev]'
	$(VENV)-$*/bin/$(FAST)

test-long: $(TRACKERS)  ## Run what `test` leaves out: simulations, sweeps over many models, demos.
	$(BIN)/pytest --numprocesses logical --dist load -m long

campaign: $(INSTALLED)  ## Kill, starve and damage real runs, and count what came of it (up to 2 hours).
	$(BIN)/python benchmarks/campaign runs/campaign
	$(BIN)/python benchmarks/campaign/endurance.py runs/endurance

campaign-quick: $(INSTALLED)  ## A twentieth of it (some 10 minutes).
	$(BIN)/python benchmarks/campaign runs/campaign --quick

lock: $(INSTALLED)  ## Write constraints.lock anew: the pins with the hashes of their files.
	$(BIN)/python .ci/lock.py

lint: $(INSTALLED)  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## Remove runs and caches, not the environment.
	rm -rf runs .cache .pytest_cache .mypy_cache .ruff_cache build
