# make demo   set up .venv, train a small model on the fireworks GIFs, resume it, sample: everything lands in outputs/demo/
# make test   set up .venv, then every test: unit, golden, property, notebooks
# make browser   set up .venv, then the start of a lesson in JupyterLab in a real browser; build/screenshots/ shows it
# make lab    set up .venv, then JupyterLab on this machine only (loopback)
# make book   the solved lessons as pages that need no network: build/book/index.html
# make bench  set up .venv-bench, then the same work beside other projects: minutes, into benchmarks/RESULTS.md
# make notebooks   rebuild and execute both notebook sets from solutions/*.py

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
READY := $(VENV)/.ready

.PHONY: help demo test browser lab book bench notebooks lint
help:
	@sed -n 's/^# make/make/p' Makefile

$(READY): pyproject.toml constraints.txt Makefile
	@echo "Setting up $(VENV): a few minutes the first time (PyTorch is most of it)."
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"minivdm needs Python 3.11 or newer; $(PYTHON) is {v[0]}.{v[1]}. Try: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { echo "could not make $(VENV); on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@$(BIN)/python -c 'import pathlib; pathlib.Path("$(READY)").touch()'
	@echo "$(VENV) is ready."

demo: $(READY)
	$(BIN)/python -m minivdm.demo

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist worksteal

# An extra that a learner can do without. The browser itself comes from the system; the test says so where there is none.
BROWSER_READY := $(VENV)/.ready-browser

$(BROWSER_READY): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,browser]"
	@$(BIN)/python -c 'import pathlib; pathlib.Path("$(BROWSER_READY)").touch()'

browser: $(BROWSER_READY)
	$(BIN)/python -m pytest -rs tests/test_browser.py

# As minivdm/__init__.py does, for cells that import PyTorch before it.
lab: export GOMP_SPINCOUNT = 1000
lab: $(READY)
	@echo "JupyterLab opens on this machine only. Start with notebooks/01_ddpm_math.ipynb; stop with Ctrl-C twice."
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/01_ddpm_math.ipynb $(LAB_OPTIONS)

book: $(READY)
	$(BIN)/python -m minivdm.course.book

# The projects compared with live in an environment of their own: .venv stays as constraints.txt says.
BENCH_VENV := .venv-bench
BENCH_PYTHON := $(BENCH_VENV)/$(notdir $(BIN))/python
BENCH_READY := $(BENCH_VENV)/.ready

$(BENCH_READY): pyproject.toml constraints.txt
	@echo "Setting up $(BENCH_VENV): a few minutes the first time."
	@$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_PYTHON) -m pip install --quiet --upgrade pip
	$(BENCH_PYTHON) -m pip install --quiet "$(TORCH)"
	$(BENCH_PYTHON) -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	@$(BENCH_PYTHON) -c 'import pathlib; pathlib.Path("$(BENCH_READY)").touch()'

bench: $(READY) $(BENCH_READY)
	$(BENCH_PYTHON) -m benchmarks $(BENCH_OPTIONS)

notebooks: $(READY)
	$(BIN)/python -m minivdm.course.build --execute

lint: $(READY)
	$(BIN)/ruff check .
