# The two commands a newcomer needs: `make serve` and `make test`. Both set everything up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := domain daemon gateway operator bench tests

.PHONY: setup serve test simulate check format bench lock clean

setup: $(STAMP)

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $(STAMP)

serve: setup
	$(BIN)/couchestor serve --data-dir var

test: setup
	$(BIN)/python -m pytest -q

# Crash simulations: SEEDS of each, from FIRST on, of ONLY one (log or node) if that is given.
SEEDS ?= 1000
FIRST ?= 0
simulate: setup
	$(BIN)/python -W error -m tests.simulation.run_seeds --seeds $(SEEDS) --first $(FIRST) $(if $(ONLY),--only $(ONLY))

check: setup
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: setup
	$(BIN)/python -m couchestor_bench.codec

lock: setup
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 --extra daemon --extra bench --extra test \
	  pyproject.toml requirements/build.in -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 --extra daemon --constraint requirements/dev.txt \
	  pyproject.toml -o requirements/daemon.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 requirements/uv.in -o requirements/uv.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
