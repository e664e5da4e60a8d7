# Every target that needs the environment makes .venv first when it is missing or pyproject.toml is
# newer. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
COLLECTIONS ?= scifact metatool feedbackqa squad11_dev
# scratch indexes go where writing costs no disk, if the system has such a place with room
SHM := $(shell df --output=avail /dev/shm 2>/dev/null | awk 'END { if ($$1 > 2000000) print "/dev/shm" }')
SCRATCH := TMPDIR=$(or $(SHM),/tmp) OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
BENCH := $(SCRATCH) $(BIN)/rag-flywheel bench $(COLLECTIONS)
RESULTS := benchmarks/results
# compiled test files are kept, whatever the environment says: compiling takes 20 s
TEST := $(SCRATCH) PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q $(if $(K),-k '$(K)')
FAST := -n 2 --dist loadfile -m "not slow and not model"
SLOW := -n 2 --dist worksteal --hypothesis-profile "all examples" \
  -m "(slow or model or thorough) and not alone"
ALONE := -m alone

.PHONY: help check test test-fast test-slow test-environments test-pythons test-lowest test-integrations test-postgres test-engines test-objects lint docs demo serve-demo \
  bench bench-full bench-tune wheel-check results venv clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 20

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bundled-model,formats,pii,dp,parquet,service,client,otel,dask,bench,dev,docs]'
	touch $@

venv: $(VENV)/.installed  ## the environment of everything below

# mypy and the docs run beside the tests, which leave gaps on two cores
check: venv  ## lint, docs and fast tests: some 90 seconds on two cores
	$(MAKE) --no-print-directory --jobs 3 --output-sync=target lint docs test-fast

test: test-fast test-slow  ## all tests; K=pattern: of all stages those that match

# 5: no test of this stage matches K
NONE_IS_FINE = || { code=$$?; [ -n '$(K)' ] && [ $$code = 5 ]; }

test-fast: venv  ## fast tests
	$(TEST) $(FAST) $(NONE_IS_FINE)

# after the others those that count what is done in a time, one after the other
test-slow: venv  ## slow tests and those of the real model
	$(TEST) $(SLOW) $(NONE_IS_FINE)
	$(TEST) $(ALONE) $(NONE_IS_FINE)

# In environments of their own, below build/environments; a Python that is not there is skipped.
# On 3.12 a part of the tests, unless --whole is given. Those of servers, postgres, engines and objects, are run by their own targets.
ENVIRONMENTS ?= 3.12 3.13 lowest integrations

test-environments:  ## fast tests on other Pythons, with the lowest allowed versions, and of frameworks
	$(SCRATCH) $(PYTHON) tests/environments.py $(ENVIRONMENTS)

test-pythons: ENVIRONMENTS = --whole 3.12 3.13
test-pythons: test-environments  ## fast tests that need no torch, on Python 3.12 and 3.13

test-lowest: ENVIRONMENTS = lowest
test-lowest: test-environments  ## fast tests with the lowest versions that pyproject.toml allows

test-integrations: ENVIRONMENTS = integrations
test-integrations: test-environments  ## tests of LangChain, LlamaIndex, Haystack and others, with these installed

test-postgres: ENVIRONMENTS = postgres
test-postgres: test-environments  ## fast tests with every index on a PostgreSQL server, which they start

test-engines: ENVIRONMENTS = engines
test-engines: test-environments  ## tests with passages found in Milvus or PostgreSQL, which they start

test-objects: ENVIRONMENTS = objects
test-objects: test-environments  ## tests of versions in an object store, with a server of S3

lint: venv  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site is build/site/index.html. A broken link or reference is an error.
docs: venv  ## the site of the documentation
	$(BIN)/mkdocs build --strict --quiet

wheel-check: venv  ## what is in the sdist and its wheel works in an environment of its own
	tests/wheel_check.sh $(BIN)/python

demo: venv  ## a help desk that learns: a table and a chart, in a minute
	HF_HUB_OFFLINE=1 $(BIN)/rag-flywheel demo

DEMO := build/serve-demo/help-desk

serve-demo: venv  ## the service and its dashboard on a demo index, at http://127.0.0.1:8000
	mkdir -p build/serve-demo
	HF_HUB_OFFLINE=1 $(BIN)/python -m rag_flywheel.bench.dashboard_demo $(DEMO)
	@echo "the dashboard: http://127.0.0.1:8000/"
	HF_HUB_OFFLINE=1 $(BIN)/rag-flywheel serve --index $(DEMO)

# The four small collections under RAG_FLYWHEEL_DATA, main setting, one seed.
bench: venv  ## the four small collections under RAG_FLYWHEEL_DATA
	mkdir -p build
	$(BENCH) --max-test 1000 --out build/bench.json

# Three seeds, every kind of user: hours. A result that is there is not made again, so it can be
# stopped and taken up; `make SEEDS=1 bench-full` beside another makes those of one seed.
SEEDS ?= 0 1 2

bench-full: venv  ## three seeds, every kind of user: hours
	$(SCRATCH) $(BIN)/python benchmarks/learning/full.py --seeds $(SEEDS) --folder $(RESULTS)

# What tuning the encoder of queries adds: three seeds of the main setting without and with it.
bench-tune: venv  ## what tuning the encoder of queries adds
	for setting in main tuned; do $(SCRATCH) $(BIN)/python benchmarks/learning/learning.py \
	  --setting $$setting --out $(RESULTS)/tuning.json || exit 1; done

results: venv  ## the result files of the benchmarks, with commit and age
	$(BIN)/python benchmarks/results_age.py

clean:  ## remove the environment and all caches
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
