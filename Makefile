# Amser: `make` shows what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
RESULTS := benchmarks/results

.PHONY: help setup weights demo test lint bench train clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Amser needs Python 3.11 or 3.12: make setup PYTHON=python3.11")'
	@echo "Installing packages into $(VENV): about 3 GB and a few minutes, once."
	@$(PYTHON) -m venv $(VENV)
	@# torch first and alone: its version decides which build everything else is resolved against
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# without dependencies: it asks for triton (1 GB), which only word timestamps on a GPU use
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps openai-whisper
	@touch $@

weights: $(VENV)/.installed ## Fetch the models (0.6 GB, checked by SHA-256; nothing the second time)
	@$(BIN)/python -m models.weights fetch

setup: weights ## Make .venv with all packages and fetch the models

demo: setup ## Start a cluster, let eight devices talk to it, show what it understood
	@$(BIN)/python -m demo

test: setup ## Run every test
	@$(BIN)/python -m pytest

lint: $(VENV)/.installed ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup ## Measure the tables of the README (DATA=folder of manifests); some hours on two cores
	$(BIN)/python -m benchmarks.asr --manifest $(DATA)/speech/librispeech.tsv --limit 112 --batch-size 8 \
		--json $(RESULTS)/asr.json
	$(BIN)/python -m benchmarks.codec --manifest $(DATA)/speech/librispeech.tsv --noise $(DATA)/noise/esc10.tsv \
		--json $(RESULTS)/codec.json
	$(BIN)/python -m benchmarks.edge --manifest $(DATA)/speech/librispeech.tsv --limit 12 --json $(RESULTS)/edge.json
	$(BIN)/python -m benchmarks.transport --manifest $(DATA)/speech/librispeech.tsv --limit 40 \
		--json $(RESULTS)/transport.json
	$(BIN)/python -m benchmarks.composition --seconds 12 --json $(RESULTS)/composition.json
	$(BIN)/python -m benchmarks.serving --manifest $(DATA)/speech/librispeech.tsv --json $(RESULTS)/serving.json
	$(BIN)/python -m benchmarks.flow --json $(RESULTS)/flow.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.service_times --manifest $(DATA)/speech/librispeech.tsv
	$(BIN)/python -m benchmarks.prediction --json $(RESULTS)/prediction.json
	$(BIN)/python -m benchmarks.autoscaling --seeds 10 --json $(RESULTS)/autoscaling.json
	$(BIN)/python -m benchmarks.generator --json $(RESULTS)/generator.json
	$(BIN)/python -m benchmarks.emotion --corpus $(DATA)/emotion/ravdess.tsv --other $(DATA)/emotion/nemo.tsv \
		--sentences $(DATA)/text/goemotions_ekman --noise $(DATA)/noise/esc10 --json $(RESULTS)/emotion.json

train: setup ## Train the emotion network that ships (DATA=folder of manifests)
	$(BIN)/python -m training.train --corpus $(DATA)/emotion/ravdess.tsv --sentences $(DATA)/text/goemotions_ekman \
		--noise $(DATA)/noise/esc10 --final

clean: ## Remove the environment and what tools left behind
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
