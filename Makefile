# Each target sets itself up: a virtual environment in .venv with the exact versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
RUN = OMP_NUM_THREADS=1 $(VENV)/bin/python -m

.PHONY: study test test-slow check docs bench clean

study: $(VENV)/.ready
	$(RUN) ablate run studies/memory_vs_arch.yaml --profile quick
	$(RUN) ablate report studies/memory_vs_arch.yaml --profile quick

test: $(VENV)/.ready
	$(RUN) pytest -n auto

test-slow: $(VENV)/.ready
	$(RUN) pytest -m slow

check: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/.ready
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(VENV)/bin/python -m mkdocs build

bench: $(VENV)/.ready
	$(RUN) ablate bench

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
