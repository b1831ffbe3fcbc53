# make demo, make test: each makes .venv if it is missing, installs into it, and goes on. make PYTHON=python3.12 ... chooses the Python.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
DEMO_OUT ?= demo
DEMO_ARGS ?=
# Test processes at once; each computes with one thread, since OpenMP threads that share a core wait for each other.
JOBS ?= 2

WEB := export/web
PAGE := $(WEB)/page/index.html
NPM := $(shell command -v npm)

.PHONY: torch-versions setup lock web web-test wheel demo check test lint types links docs sbom audit soak clean

setup: $(INSTALLED) $(if $(NPM),$(PAGE))

# The page that segments scans in a browser, built by npm into a folder that is not in the repository; the wheel carries it.
web: $(PAGE)

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json $(WEB)/.npmrc
	cd $(WEB) && npm ci --silent
	@touch $@

$(PAGE): $(WEB)/node_modules/.package-lock.json $(WEB)/build.mjs $(wildcard $(WEB)/src/*/* $(WEB)/licenses/*)
	cd $(WEB) && npm run --silent build
	@touch $@

web-test: $(PAGE)
	cd $(WEB) && npm run --silent check

wheel: $(INSTALLED) web
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# Everything is installed with hashes. torch has those of its builds for GPUs and for CPUs; where pip has a folder of wheels on this machine,
# that is looked at first, since pip would prefer the registry's build.
# For a build of your own, which has no hash here: make setup TORCH='--constraint constraints.txt torch'
HASHED := --no-deps --require-hashes --requirement
TORCH ?= $(HASHED) lock-torch.txt
BRINGS_CUDA := from importlib.metadata import requires; raise SystemExit(not any(one.startswith(("nvidia", "cuda")) for one in requires("torch")))
PIP := $(BIN)/python -m pip --disable-pip-version-check

$(INSTALLED): setup.py pyproject.toml lock.txt lock-torch.txt lock-cuda.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit("attunet runs on Python 3.11 and 3.12, and $(PYTHON) is %d.%d: try make PYTHON=python3.12 $(MAKECMDGOALS)" % v \
	  if v not in ((3, 11), (3, 12)) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet $(HASHED) lock.txt
	$(PIP) install --quiet --no-index $(TORCH) 2> /dev/null || $(PIP) install --quiet $(TORCH)
	if $(BIN)/python -c '$(BRINGS_CUDA)'; then $(PIP) install --quiet $(HASHED) lock-cuda.txt; fi
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	@touch $@

# constraints.txt and the three lock files of setup.py's requirements; UPGRADE=--upgrade takes the newest versions. WHEELS="--wheels FOLDER"
# adds the hashes of the builds of torch in a folder.
lock: $(INSTALLED)
	test -x build/uv/bin/uv || { $(PYTHON) -m venv build/uv && build/uv/bin/python -m pip install --quiet uv; }
	$(BIN)/python -m attunet.launch.lock build/uv/bin/uv $(UPGRADE) $(WHEELS)

# Both networks trained, exported, evaluated and drawn. DEMO_ARGS="--data DIR" for your own cases.
demo: $(INSTALLED)
	$(BIN)/attunet demo --out $(DEMO_OUT) $(DEMO_ARGS)

# Linters, types and the quick tests, in about a minute.
check: lint types
	$(BIN)/python -m pytest -m "not slow and not soak" -n $(JOBS) -q tests/toolkit/volumes tests/toolkit/metrics tests/toolkit/models tests/toolkit/loading tests/launch/test_config_page.py tests/test_structure.py

test: lint types $(if $(NPM),web-test)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not soak" -n $(JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The folders are installed under one import name; mypy, editors and the API reference see that name through a folder of links.
links:
	@rm -rf build/types && mkdir -p build/types/attunet
	@ln -s $(CURDIR)/toolkit/* $(CURDIR)/launch $(CURDIR)/export $(CURDIR)/benchmarks build/types/attunet/

types: $(INSTALLED) links
	MYPYPATH=build/types $(BIN)/mypy -p attunet

# The documentation site, in build/site; a broken link or an unknown name is an error.
docs: $(INSTALLED) links
	$(BIN)/python -m mkdocs build --strict --quiet

# Software bills of materials (CycloneDX) of the base and the training install; an error if they are not those of constraints.txt,
# or for torch's build for GPUs of lock-cuda.txt.
sbom: $(INSTALLED)
	$(BIN)/python -m attunet.launch.components --sbom build/sbom --check constraints.txt lock-cuda.txt

# Known vulnerabilities of what is locked: exit code 1 for some, 2 if packages could not be compared with the database.
audit: $(INSTALLED)
	@$(BIN)/python -m attunet.launch.vulnerabilities lock.txt lock-torch.txt lock-cuda.txt

# Import, gate, batch norm and a training step on the oldest and the newest supported torch, each in an environment of its own. Not part of
# CI: for Linux PyPI has only the builds with CUDA, 3 to 7 GB each. TORCH_VERSIONS="2.10.0" tries one.
TORCH_VERSIONS ?= 2.10.0 2.14.1
torch-versions:
	@mkdir -p build && grep -vE '^(torch|triton|nvidia|cuda)[-=_]' constraints.txt > build/constraints-without-torch.txt
	@for version in $(TORCH_VERSIONS); do \
	  test -x build/torch-$$version/bin/python || $(PYTHON) -m venv build/torch-$$version || exit 1; \
	  build/torch-$$version/bin/python -m pip install --disable-pip-version-check --quiet --constraint build/constraints-without-torch.txt \
	    torch==$$version pytest pytest-timeout --editable '.[train,images]' || exit 1; \
	  echo "torch $$version"; \
	  build/torch-$$version/bin/python -m pytest -q -k "not triton" tests/toolkit/ops/test_gate_in_torch.py \
	    tests/toolkit/ops/test_norm_relu.py tests/toolkit/ops/test_norm_in_torch.py tests/toolkit/training/test_step_graph.py || exit 1; \
	done

# Kills, full disks, two commands at once, leaks, fuzzing and the long tests, in one table and 90 minutes; SOAK_MINUTES=3 is a rehearsal.
soak: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak/soak.py

clean:
	rm -rf $(WEB)/node_modules $(WEB)/page
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
