# make demo, make test, make lint: each makes .venv first when it is missing or pyproject.toml is newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
COLLECTIONS ?= scifact metatool feedbackqa squad11_dev
BENCH := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/rag-flywheel bench $(COLLECTIONS)
RESULTS := benchmarks/results

.PHONY: demo test test-fast test-slow lint bench bench-full venv clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bundled-model,bench,dev]'
	touch $@

venv: $(VENV)/.installed

demo: venv
	HF_HUB_OFFLINE=1 $(BIN)/rag-flywheel demo

test: test-fast test-slow

test-fast: venv
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m "not slow"

test-slow: venv
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m slow

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The four small collections under RAG_FLYWHEEL_DATA, main setting, one seed.
bench: venv
	$(BENCH) --max-test 1000 --out $(RESULTS)/bench.json

# Three seeds, every kind of user: hours.
bench-full: venv
	for seed in 0 1 2; do \
	  $(BENCH) --seed $$seed --out $(RESULTS)/full-main-$$seed.json && \
	  $(BENCH) --seed $$seed --eta 0 --eps 0 --out $(RESULTS)/full-perfect-$$seed.json && \
	  $(BENCH) --seed $$seed --eps 0 --out $(RESULTS)/full-attention-$$seed.json && \
	  $(BENCH) --seed $$seed --eps 0.4 --out $(RESULTS)/full-wrong40-$$seed.json && \
	  $(BENCH) --seed $$seed --trust 0.3 --out $(RESULTS)/full-trust-$$seed.json && \
	  $(BENCH) --seed $$seed --malicious 0.05 --attack random --out $(RESULTS)/full-random5-$$seed.json && \
	  $(BENCH) --seed $$seed --malicious 0.05 --attack inverted --out $(RESULTS)/full-inverted5-$$seed.json && \
	  $(BENCH) --seed $$seed --malicious 0.05 --attack collude --out $(RESULTS)/full-collude5-$$seed.json && \
	  $(BENCH) --seed $$seed --answer-level --out $(RESULTS)/full-answers-$$seed.json || exit 1; \
	done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
