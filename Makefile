# Every target sets up what it needs: a fresh machine with Python and a C++ compiler is enough.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
DEMO := $(VENV)/.demo
PY := $(VENV)/bin/python
# Quiet twice: errors only. pip warns of every index that lacks a package which another one has.
INSTALL := -m pip install -qq --disable-pip-version-check --constraint constraints.txt
PIP := $(PY) $(INSTALL)

# What hotstart is compared with is no dependency of it, and has an environment of its own.
PEERS := .venv-peers
PEERS_PIP := $(PEERS)/bin/python $(INSTALL)

# The site is made from the docs by tools of its own; neither torch nor hotstart is installed for it.
SITE := .venv-docs
SITE_PY := $(SITE)/bin/python

# Model files come with a package; nothing is to be fetched while a demo or a test runs.
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)

# One thread per core this process may use: more make CPU kernels slower, not faster.
OMP_NUM_THREADS ?= $(CORES)
export OMP_NUM_THREADS

# Test files run side by side, as far as memory goes: a process that compiles takes some 3 GB.
WORKERS ?= $(shell test $(CORES) -lt 4 && echo $(CORES) || echo 4)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-thorough test-slow test-browser check format matrix package bench bench-peers conformance reliability databases fuzz docs docs-images clean
.SILENT:

help:
	echo "make demo          embed sentences: eager, torch.compile and hotstart side by side (about 3 minutes)"
	echo "make test          the tests that take little time each"
	echo "make test-thorough those that compile, or start processes, for seconds"
	echo "make test-slow     the tests that take long, such as real models through Inductor"
	echo "make test-browser  the pages of reports in Chromium, checked by axe-core"
	echo "make matrix        the tests with every supported torch and Python (hours, some 6 GB of disk each)"
	echo "make package       build sdist, wheel and SBOM, and try each extra in an environment of its own"
	echo "make check         lint, formatting, types"
	echo "make format        format and fix what can be fixed"
	echo "make bench         every benchmark; each keeps its JSON in benchmarks/"
	echo "make bench-peers   hotstart against eager, torch.compile, AOTInductor, ONNX Runtime, OpenVINO (hours)"
	echo "make conformance   every architecture of the suite, into docs/models.md (some hours)"
	echo "make reliability   what a cache survives, into docs/reliability.md (some minutes)"
	echo "make databases     torch's operators, modules and examples, into docs/databases.md (an hour)"
	echo "make fuzz          random programs against eager mode, op by op and with Inductor (some minutes)"
	echo "make docs          the site of the docs, into site/ (seconds, once it is set up)"
	echo "make docs-images   reports and profiles of four models, photographed for the docs (some minutes)"
	echo "make clean         remove the environment, caches and builds"

setup: $(READY)

# torch goes first, and held to the constraint: what comes after finds it there and leaves it alone.
$(DEMO): pyproject.toml constraints.txt
	echo "setting up $(VENV) (the first time takes a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[cli,demo]'
	touch $@

# What tests and checks need besides.
$(READY): $(DEMO)
	$(PIP) --editable '.[cli,demo,dev]'
	touch $@

demo: $(DEMO)
	$(PY) -m examples.demo.run

SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Threads that wait leave the cores to the other workers.
test test-thorough: export OMP_WAIT_POLICY := PASSIVE
# Modules are compiled once, not in each of the processes that tests start.
test test-thorough: export PYTHONDONTWRITEBYTECODE :=
test: $(READY)
	$(PY) -m pytest -q -m "not thorough and not slow and not browser" $(SIDE_BY_SIDE)

test-thorough: $(READY)
	$(PY) -m pytest -q -m "thorough and not slow and not browser" $(SIDE_BY_SIDE)

test-slow: $(READY)
	$(PY) -m pytest -q -m slow

# Chromium comes from the system: `apt-get install chromium`, say. axe-core is fetched with npm.
AXE := $(VENV)/axe
$(AXE)/.ready: $(READY)
	$(PIP) 'playwright>=1.50'
	mkdir -p $(AXE)
	cd $(AXE) && npm pack --silent axe-core@4 >/dev/null && tar xzf axe-core-*.tgz
	touch $@

test-browser: $(AXE)/.ready
	AXE_CORE=$(AXE)/package/axe.min.js $(PY) -m pytest -q -m browser tests/browser

# Some minutes: four models are built and measured. Nothing else should run meanwhile.
docs-images: $(AXE)/.ready
	rm -rf build/pages
	$(PY) -m website.screenshots build/pages

matrix: $(READY)
	$(PY) -m nox

package: $(READY)
	$(PY) -m nox -s package

check: $(READY)
	$(PY) -m ruff check --quiet .
	$(PY) -m ruff format --quiet --check .
	$(PY) -m mypy --no-error-summary
	echo "check: ruff and mypy found nothing"

format: $(READY)
	$(PY) -m ruff check --quiet --fix .
	$(PY) -m ruff format --quiet .

# Peers need packages of their own, and hours: they have a target of their own.
bench: $(READY)
	set -e; for benchmark in $(filter-out %/bench_peers.py,$(wildcard benchmarks/bench_*.py)); do \
		if [ -e "$$benchmark" ]; then echo "$$benchmark"; $(PY) "$$benchmark"; fi; \
	done

$(PEERS)/.ready: pyproject.toml constraints.txt benchmarks/peers.txt
	echo "setting up $(PEERS) (the first time takes a few minutes)"
	$(PYTHON) -m venv $(PEERS)
	$(PEERS_PIP) torch
	$(PEERS_PIP) --editable '.[demo,serve]' --requirement benchmarks/peers.txt
	touch $@

# OPTIONS="--models minilm --quick" measures less, and keeps nothing; --help says what else there is.
bench-peers: $(PEERS)/.ready
	$(PEERS)/bin/python benchmarks/bench_peers.py $(OPTIONS)
	if [ -e benchmarks/results/peers.json ]; then $(PEERS)/bin/python benchmarks/report_peers.py; fi

# OPTIONS="--missing" goes on where a run was interrupted; --help says what else there is.
conformance: $(READY)
	$(PY) -m qualification.conformance.run $(OPTIONS)

reliability: $(READY)
	$(PY) -m qualification.reliability.run

databases: $(READY)
	$(PY) -m qualification.databases.run $(OPTIONS)
	$(PY) -m qualification.databases.run --inductor $(OPTIONS)

# OPTIONS="--seed 5000" tries other programs; --help says what else there is.
fuzz: $(READY)
	$(PY) -m qualification.fuzz.run --saved $(OPTIONS)
	$(PY) -m qualification.fuzz.run --saved --compiler inductor $(OPTIONS)

$(SITE)/.ready: pyproject.toml constraints.txt
	echo "setting up $(SITE)"
	$(PYTHON) -m venv $(SITE)
	$(PYTHON) website/requirements.py > $(SITE)/requirements.txt
	$(SITE_PY) $(INSTALL) --requirement $(SITE)/requirements.txt
	touch $@

# Strict: a warning or a dead link fails it, and so does a page that would fetch something.
docs: $(SITE)/.ready
	$(SITE_PY) -m website.stage
	$(SITE)/bin/zensical build --strict --clean
	$(SITE_PY) -m website.finish

clean:
	rm -rf $(VENV) $(PEERS) $(SITE) site .cache .nox build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests qualification benchmarks examples -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
