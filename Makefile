# The two commands of the README (demo, test) each work as the only command in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-long check
setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/twin-scanner demo --out demo-out

test: setup
	$(BIN)/python -m pytest -n 3 --dist loadfile $(PYTEST_ARGS)

test-long: setup
	$(BIN)/python -m pytest -n 2 --dist load -m long $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/measures.py
