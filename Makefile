# make demo, make test, make lint: each makes .venv first when it is missing or pyproject.toml is newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
COLLECTIONS ?= scifact metatool feedbackqa squad11_dev
# scratch indexes go where writing costs no disk, if the system has such a place
SCRATCH := TMPDIR=$(firstword $(wildcard /dev/shm) /tmp) OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
BENCH := $(SCRATCH) $(BIN)/rag-flywheel bench $(COLLECTIONS)
RESULTS := benchmarks/results

.PHONY: demo test test-fast test-slow lint bench bench-full bench-tune venv clean

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
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m "not slow and not model"

test-slow: venv
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m "slow or model"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The four small collections under RAG_FLYWHEEL_DATA, main setting, one seed.
bench: venv
	$(BENCH) --max-test 1000 --out $(RESULTS)/bench.json

# Three seeds, every kind of user: hours. A result that is there is not made again, so it can be
# stopped and taken up; with `make -j2 bench-full` two runs go side by side, on one thread each.
# The main setting asks every train query and is scored on every test query, the others ask 3,000 and
# are scored on 1,000 of each collection.
SOME := --max-train 3000 --max-test 1000
USERS_main :=
USERS_perfect := --eta 0 --eps 0 $(SOME)
USERS_attention := --eps 0 $(SOME)
USERS_wrong40 := --eps 0.4 $(SOME)
USERS_trust := --trust 0.3 $(SOME)
USERS_random5 := --malicious 0.05 --attack random $(SOME)
USERS_inverted5 := --malicious 0.05 --attack inverted $(SOME)
USERS_collude5 := --malicious 0.05 --attack collude $(SOME)
USERS_answers := --answer-level $(SOME)
KINDS := main perfect attention wrong40 trust random5 inverted5 collude5 answers
FULL := $(foreach seed,0 1 2,$(foreach kind,$(KINDS),$(RESULTS)/full-$(kind)-$(seed).json))

bench-full: $(FULL)

# What tuning the encoder of queries adds: three seeds of the main setting without and with it.
bench-tune: venv
	for setting in main tuned; do $(SCRATCH) $(BIN)/python benchmarks/learning.py \
	  --setting $$setting --out $(RESULTS)/tuning.json || exit 1; done

$(FULL): $(RESULTS)/full-%.json: | $(VENV)/.installed
	$(BENCH) --seed $(lastword $(subst -, ,$*)) $(USERS_$(firstword $(subst -, ,$*))) --out $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
