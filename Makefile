# Two commands on a fresh machine: `make demo` and `make test`.
.PHONY: help setup browser demo demo-train site test test-fast lint clean

VENV := .venv
SETUP_DONE := $(VENV)/.setup-done

help:
	@echo "make setup      .venv with everything (PYTHON=python3.12 chooses the interpreter, TORCH=cpu a small torch)"
	@echo "make demo       draw a slide, find its fat, compare with the truth: two minutes"
	@echo "make demo-train teach the network a new stain on 40 small tiles: two minutes"
	@echo "make site       the guides as a site, in output/site"
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
	@$(VENV)/bin/python tools/demo.py output/demo

demo-train: setup
	@$(VENV)/bin/python tools/demo_train.py output/demo_train

site: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet
	@echo "open output/site/index.html"

# The screening page is tested in a real browser.
browser:
	tools/install_browser.sh

test: setup browser
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist worksteal

test-fast: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 -m "not slow"

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
