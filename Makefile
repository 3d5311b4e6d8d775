# Two commands from a bare clone: `make search` and `make test`. Everything they need goes into .venv, and what
# the tests of the SGLang engine need, which pins other versions, into .venv-sgl.
PYTHON ?= python3
VENV ?= .venv
VENV_SGL ?= .venv-sgl
BUDGET ?= 50
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

TEST := $(VENV)/bin/python -m pytest -n 2
TEST_SGL := PYTHON=$(PYTHON) VENV_SGL=$(VENV_SGL) bash tests/sgl/environment.sh && \
  $(VENV_SGL)/bin/python -m pytest -n 2 --dist loadfile tests/sgl

.PHONY: search test test-all coverage check clean

search: $(VENV)/.installed
	$(VENV)/bin/python -m agent.search --budget $(BUDGET) $(ARGS)

test: $(VENV)/.installed-dev
	$(TEST) -m "not full" $(ARGS)
	$(TEST_SGL) -m "not full" $(ARGS)

test-all: $(VENV)/.installed-dev
	$(TEST) $(ARGS)
	$(TEST_SGL) $(ARGS)

coverage: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n 2 -m "not full" tests/vortex tests/kernels tests/docs --cov --cov-report=term:skip-covered --cov-fail-under=95

check: $(VENV)/.installed-dev
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m mypy

clean:
	rm -rf $(VENV) $(VENV_SGL)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "Python 3.11 or 3.12 is needed; choose one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) (torch, transformers, ray and more: some minutes the first time)"
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) with the dev extra (some minutes the first time)"
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed
