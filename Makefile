# Two commands on a fresh machine: `make demo` and `make test`.
.PHONY: help setup browser demo test test-fast lint clean

VENV := .venv
SETUP_DONE := $(VENV)/.setup-done

help:
	@echo "make setup      .venv with everything (PYTHON=python3.12 chooses the interpreter, TORCH=cpu a small torch)"
	@echo "make demo       train on synthetic tissue for some minutes, evaluate, draw outlines"
	@echo "make test       the whole test suite, on two cores (installs Chromium by apt if no browser is there)"
	@echo "make test-fast  without the slow tests"
	@echo "make lint       ruff and mypy"

setup: $(SETUP_DONE)

$(SETUP_DONE): setup.py constraints.txt tools/setup_environment.sh steatosis_d2/install_detectron2.py
	@TORCH="$(TORCH)" tools/setup_environment.sh $(PYTHON)
	@echo "$(CHOICE)" > $@

# Whoever names another interpreter or torch than last time gets it.
CHOICE := $(strip $(PYTHON) $(TORCH))
ifneq ($(CHOICE),)
ifneq ($(CHOICE),$(shell cat $(SETUP_DONE) 2> /dev/null))
.PHONY: $(SETUP_DONE)
endif
endif

demo: setup
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tools/demo.sh output/demo

# The screening page is tested in a real browser.
browser:
	tools/install_browser.sh

test: setup browser
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2

test-fast: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 -m "not slow"

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
