# Every target makes and uses its own .venv from pinned versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out

.PHONY: demo paper test lint bench lock clean

$(VENV)/.done: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(VENV)/.done  ## the main job on real data
	mkdir -p $(OUT)
	$(BIN)/jaxmix demo lalonde --json $(OUT)/lalonde.json --plot $(OUT)/lalonde.png

paper: $(VENV)/.done  ## the paper's four studies, their figures and numbers
	$(BIN)/python -m experiments.paper --out $(OUT)/paper $(ARGS)

test: $(VENV)/.done  ## all tests, doctests included
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(VENV)/.done  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.done  ## closed forms and bootstrap against numpy loops, as ratios
	$(BIN)/python -m experiments.benchmarks.closed_forms

lock: $(VENV)/.done  ## renew requirements.lock from pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip-tools
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-header --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --allow-unsafe --annotation-style line \
	  $(foreach extra,io plot cli graph demo test lint,--extra $(extra)) \
	  --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) $(OUT) .tox build *.egg-info .pytest_cache .mypy_cache .ruff_cache
