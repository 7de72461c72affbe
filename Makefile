# Amser: `make` shows what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= $(AMSER_DATA)
RESULTS ?= benchmarks/results

.PHONY: help setup weights demo test test-all lint bench bench-serving train data clean

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

weights: $(VENV)/.installed ## Fetch the models (0.3 GB, checked by SHA-256; nothing the second time)
	@$(BIN)/python -m models.weights fetch

setup: weights ## Make .venv with all packages and fetch the models

demo: setup ## Start a cluster, let eight devices talk to it, show what it understood
	@$(BIN)/python -m demo

# Most tests run side by side. What measures time, or starts a cluster of its own, has the machine to itself; so has a second
# application in one process: Serve pickles the gateway's class anew, and with it what the first one's replica holds.
ALONE = tests/local/test_sick_stages.py tests/unit/load_tests/test_generator.py tests/unit/load_tests/test_load_run.py tests/e2e \
        tests/cluster

test: TESTS = -m "not slow"
test: setup ## Run the tests that take seconds each, a real cluster's among them
test-all: setup ## Run every test: whole trainings too, and clusters that are broken and upgraded
test test-all:
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS) $(ALONE:%=--ignore=%)
	@$(BIN)/python -m pytest $(TESTS) $(ALONE)

lint: $(VENV)/.installed ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# The commands of docs/benchmarks.md, one for one; a test compares them.
SPEECH = $(DATA)/speech/librispeech.tsv
EMOTION = --corpus $(DATA)/emotion/ravdess.tsv --sentences $(DATA)/text/goemotions_ekman --noise $(DATA)/noise/esc10
SERVING = $(BIN)/python -m benchmarks.serving --manifest $(SPEECH) --also $(DATA)/emotion/ravdess.tsv --limit 32 \
	--clients 1 8 32 --rounds 2 --arrangement 2x1 \
	--systems openai-whisper-monolith faster-whisper-monolith distributed fused --json $(RESULTS)/serving.json
bench bench-serving train: export AMSER_DATA = $(DATA)

bench: data setup ## Measure docs/benchmarks.md (DATA=folder of manifests, RESULTS=where rows go); hours on two cores
	$(BIN)/python -m benchmarks.codec --manifest $(SPEECH) --limit 72 --conditions clean --json $(RESULTS)/codec.json
	$(BIN)/python -m benchmarks.codec --manifest $(SPEECH) --limit 72 --noise $(DATA)/noise/esc10.tsv \
		--conditions babble-10db noise-5db --json $(RESULTS)/codec_noise.json
	$(BIN)/python -m benchmarks.edge --manifest $(SPEECH) --limit 8 --json $(RESULTS)/edge.json
	$(BIN)/python -m benchmarks.transport --manifest $(SPEECH) --limit 24 --json $(RESULTS)/transport.json \
		--transport pcm:16-bit flac:5 mp3:16k aac:16k interpolation:4x2 opus:16k svd-f16:0.125 svd-i8:0.25 opus:8k \
		klt:standard klt:low
	$(BIN)/python -m benchmarks.asr --manifest $(SPEECH) --limit 112 --batch-size 8 --json $(RESULTS)/asr.json
	$(BIN)/python -m benchmarks.words --weights whisper-base-short whisper-base --reference-weights whisper-base \
		--json $(RESULTS)/words.json
	$(BIN)/python -m benchmarks.realtime.word_times --manifest $(SPEECH) --json $(RESULTS)/word_times.json
	$(BIN)/python -m benchmarks.realtime --clips 10 --cuts 100 --equal 24 --sockets 5 10 20 50 \
		--json $(RESULTS)/realtime.json
	$(BIN)/python -m benchmarks.recordings --manifest $(SPEECH) --minutes 6 60 --json $(RESULTS)/recordings.json
	$(SERVING)
	$(BIN)/python -m benchmarks.composition --seconds 12 --json $(RESULTS)/composition.json
	$(BIN)/python -m benchmarks.flow --rates 4 8 12 22 --overload 16 --seconds 25 --json $(RESULTS)/flow.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.service_times --manifest $(SPEECH) \
		--json load_tests/simulation/service_times.json
	$(BIN)/python -m benchmarks.prediction --seconds 90 --update --json $(RESULTS)/prediction.json
	$(BIN)/python -m benchmarks.autoscaling --seeds 10 --json $(RESULTS)/autoscaling.json
	$(BIN)/python -m benchmarks.generator --devices 5000 --json $(RESULTS)/generator.json
	$(BIN)/python -m benchmarks.telemetry --manifest $(SPEECH) --limit 8 --rounds 8 --json $(RESULTS)/telemetry.json
	$(BIN)/python -m benchmarks.drills --json $(RESULTS)/drills.json
	$(BIN)/python -m benchmarks.drills.soak --minutes 30 --rate 2 --json $(RESULTS)/soak.json
	$(BIN)/python -m benchmarks.emotion --only cross --json $(RESULTS)/emotion_cross.json
	$(BIN)/python -m training.train --protocol folds --folds-of ravdess --json $(RESULTS)/emotion_ravdess.json
	$(BIN)/python -m benchmarks.codec --manifest $(SPEECH) --limit 4 --transports pcm --noise $(DATA)/noise/esc10.tsv \
		--conditions clean babble-10db noise-5db --emotion $(DATA)/emotion/ravdess.tsv --emotion-limit 300 \
		--json $(RESULTS)/codec_emotion.json
	$(BIN)/python -m benchmarks.emotion --only pairs four --json $(RESULTS)/emotion_folds.json
	$(BIN)/python -m benchmarks.emotion $(EMOTION) --only baselines --json $(RESULTS)/emotion.json
	$(BIN)/python -m benchmarks.fusion_cost --corpus $(DATA)/emotion/ravdess.tsv --json $(RESULTS)/fusion_cost.json

bench-serving: data setup ## Measure both profiles beside one-process servers, on long and short speech (half an hour)
	$(SERVING)

train: data setup ## Train the emotion network that ships, into runs/ (DATA=folder of manifests)
	$(BIN)/python -m training.train --final --checkpoint runs/amser-states.safetensors

data:
	@test -n "$(DATA)" || { echo "Say where the manifests are: make bench DATA=folder, or set AMSER_DATA"; exit 2; }

clean: ## Remove the environment and what tools left behind
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
