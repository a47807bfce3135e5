# The two commands a newcomer needs: `make serve` and `make test`. Both set everything up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := domain daemon gateway operator bench tests
# Where `make install` puts the program, the unit and the configuration.
PREFIX ?= /opt/couchestor
SYSCONFDIR ?= /etc
UNITDIR ?= $(SYSCONFDIR)/systemd/system
DOCDIR ?= $(PREFIX)/share/doc

.PHONY: setup serve test test-kube simulate fuzz check format bench lock crds clean install python-is-new-enough

setup: $(STAMP)

# Said before pip can say it in forty lines.
python-is-new-enough:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "CoucheStor needs Python 3.11 or newer and '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." \
	    "Name another: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: install its venv module" \
	    "(Debian, Ubuntu: apt-get install python3-venv)." >&2; exit 1; }

$(STAMP): requirements/dev.txt pyproject.toml | python-is-new-enough
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $(STAMP)

serve: setup
	$(BIN)/couchestor serve --data-dir var

# For tests/clients alone: s3fs and the AWS CLI of the other tests want different versions of
# botocore. Over one daemon, so one after the other.
CLIENTS_VENV := .venv-clients
CLIENTS_STAMP := $(CLIENTS_VENV)/.installed
$(CLIENTS_STAMP): requirements/clients.txt pyproject.toml | python-is-new-enough
	$(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(CLIENTS_VENV)/bin/uv pip install --quiet --python $(CLIENTS_VENV)/bin/python \
	  --require-hashes -r requirements/clients.txt
	$(CLIENTS_VENV)/bin/uv pip install --quiet --python $(CLIENTS_VENV)/bin/python --no-deps \
	  --no-build-isolation -e .
	touch $(CLIENTS_STAMP)

# Three at a time on two cores, too: most tests wait for a daemon, a device or a clock. Files stay
# together, so that what one of them starts for all its tests is started once.
TEST_JOBS ?= 3
test: setup $(CLIENTS_STAMP)
	$(BIN)/python -m pytest -q -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
	$(CLIENTS_VENV)/bin/python -m pytest -q tests/clients

# Against a real kube-apiserver, and by a real helm: built with Go when they are not in the cache yet,
# which takes long. In an environment of its own: the Kubernetes client and the S3 clients of the
# other tests want different versions of python-dateutil. Each job has servers of its own, and mostly
# waits.
KUBE_JOBS ?= 2
KUBE_VENV := .venv-kube
KUBE_STAMP := $(KUBE_VENV)/.installed
$(KUBE_STAMP): requirements/kube.txt pyproject.toml | python-is-new-enough
	$(PYTHON) -m venv $(KUBE_VENV)
	$(KUBE_VENV)/bin/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(KUBE_VENV)/bin/uv pip install --quiet --python $(KUBE_VENV)/bin/python --require-hashes \
	  -r requirements/kube.txt
	$(KUBE_VENV)/bin/uv pip install --quiet --python $(KUBE_VENV)/bin/python --no-deps \
	  --no-build-isolation -e .
	touch $(KUBE_STAMP)

test-kube: $(KUBE_STAMP)
	servers=$$(tests/kube/build_servers.sh) && \
	  COUCHESTOR_KUBE_SERVERS=$$servers $(KUBE_VENV)/bin/python -m pytest -q \
	  -n $(KUBE_JOBS) --dist loadfile tests/kube

# Crash simulations: SEEDS of each, from FIRST on, of ONLY one (log or node) if that is given, in
# JOBS processes.
SEEDS ?= 1000
FIRST ?= 0
JOBS ?= 1
simulate: setup
	$(BIN)/python -W error -m tests.simulation.run_seeds --seeds $(SEEDS) --first $(FIRST) --jobs $(JOBS) $(if $(ONLY),--only $(ONLY))

# Parsers fuzzed by coverage, SECONDS each, in an environment of its own: see docs/TESTING.md.
SECONDS ?= 60
TARGETS ?= all
FUZZ_VENV := .venv-fuzz
FUZZ_STAMP := $(FUZZ_VENV)/.installed
$(FUZZ_STAMP): requirements/fuzz.txt pyproject.toml | python-is-new-enough
	$(PYTHON) -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(FUZZ_VENV)/bin/uv pip install --quiet --python $(FUZZ_VENV)/bin/python --require-hashes \
	  -r requirements/fuzz.txt
	$(FUZZ_VENV)/bin/uv pip install --quiet --python $(FUZZ_VENV)/bin/python --no-deps \
	  --no-build-isolation -e .
	touch $(FUZZ_STAMP)

fuzz: $(FUZZ_STAMP)
	$(FUZZ_VENV)/bin/python -m tests.fuzz.run_atheris --seconds $(SECONDS) $(TARGETS)

check: setup
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports
	$(BIN)/hadolint operator/Dockerfile daemon/Dockerfile

format: setup
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# Every figure of the README, some 15 minutes on a quiet machine; raw results in bench/results/.
bench: setup
	$(BIN)/python -m couchestor_bench.codec
	$(BIN)/python -m couchestor_bench.peers --connections 16
	$(BIN)/python -m couchestor_bench.peers --connections 32
	$(BIN)/python -m couchestor_bench.memory
	$(BIN)/python -m couchestor_bench.listing

# The daemon for systemd, as root; an existing configuration is kept. See docs/OPERATIONS.md.
install: setup
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(PREFIX)/bin/uv pip install --quiet --compile-bytecode --python $(PREFIX)/bin/python \
	  --require-hashes -r requirements/daemon.txt
	rm -rf $(VENV)/dist
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python \
	  --out-dir $(VENV)/dist
	$(PREFIX)/bin/uv pip install --quiet --compile-bytecode --python $(PREFIX)/bin/python \
	  --no-deps --reinstall $(VENV)/dist/couchestor-*.whl
	install -d $(UNITDIR) $(DOCDIR) $(SYSCONFDIR)/couchestor $(SYSCONFDIR)/sysusers.d \
	  $(SYSCONFDIR)/tmpfiles.d
	sed 's#/opt/couchestor#$(PREFIX)#g' systemd/couchestord.service >$(UNITDIR)/couchestord.service
	install -m 644 systemd/couchestor.sysusers.conf $(SYSCONFDIR)/sysusers.d/couchestor.conf
	install -m 644 systemd/couchestor.tmpfiles.conf $(SYSCONFDIR)/tmpfiles.d/couchestor.conf
	install -m 644 docs/OPERATIONS.md $(DOCDIR)/OPERATIONS.md
	test -e $(SYSCONFDIR)/couchestor/couchestor.toml || \
	  install -m 644 systemd/couchestor.toml $(SYSCONFDIR)/couchestor/couchestor.toml

lock: setup
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 --extra daemon --extra bench --extra test \
	  pyproject.toml requirements/build.in -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 --extra daemon --constraint requirements/dev.txt \
	  pyproject.toml -o requirements/daemon.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 --extra operator --constraint requirements/daemon.txt \
	  pyproject.toml -o requirements/operator.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 --extra daemon --extra client-test \
	  --constraint requirements/daemon.txt \
	  pyproject.toml requirements/build.in -o requirements/clients.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 --extra operator --extra kube-test \
	  --constraint requirements/operator.txt \
	  pyproject.toml requirements/build.in -o requirements/kube.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 --extra daemon --constraint requirements/dev.txt \
	  pyproject.toml requirements/build.in requirements/fuzz.in -o requirements/fuzz.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 --constraint requirements/dev.txt \
	  requirements/build.in -o requirements/build.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --universal --python-version 3.11 requirements/uv.in -o requirements/uv.txt

# The custom resource definitions, from the models in couchestor_operator.resources.
crds: setup
	$(BIN)/python -m couchestor_operator.app.write_crds helm/couchestor/crds

clean:
	rm -rf $(VENV) $(CLIENTS_VENV) $(KUBE_VENV) $(FUZZ_VENV) .fuzz
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
