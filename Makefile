# The two commands of the README (demo, test) each work as the only command in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin

# Bytecode that is kept: the workers and every program that a test starts would compile the same files again.
test test-long: export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-long check site bench
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
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m long $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/measures.py
	$(MAKE) site

# The site of docs/, strictly, into a folder of its own; SITE=FOLDER keeps it.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir "$${SITE:-$$(mktemp -d)}"

# Hours, or with QUICK=1 at most 40 minutes on 2 idle cores: it goes on where an earlier run was interrupted (.bench/), and
# writes the page. CT=FOLDER also measures on that CT series; BENCHMARKS="NAME ..." runs some alone.
bench: setup
	$(BIN)/python -m benchmarks.page $(if $(QUICK),--quick) $(if $(CT),--ct $(CT)) --out docs/performance.md $(BENCHMARKS)
