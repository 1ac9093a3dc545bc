# Everything sets itself up in .venv; the machine needs python3 (3.11 to 3.13), git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests run in so many processes, a file in one of them, the longest first (tests/seconds.py). PYTEST: more options.
JOBS ?= 2
SPREAD := -n $(JOBS) --dist loadfile --no-loadscope-reorder
# CI and development read real recordings from a folder when there is one; users let `dso fetch` download them.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
LOCK := uv pip compile --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --quiet --upgrade

.PHONY: demo test lint check long fast light docs dist bench-brax bench-filters bench-figaroh lock clean

demo: $(VENV)/run.stamp
	@$(BIN)/python examples/demo.py

test: lint check

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

check: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(SPREAD) $(PYTEST) -m "not long"

# What takes minutes each.
long: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(SPREAD) $(PYTEST) -m long

fast: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(SPREAD) $(PYTEST) -m "not slow and not long"

# What `pip install dso-robotics` gives: no JAX, and here the newest MuJoCo. The tests of the C engine that need no more, with
# the numbers that MuJoCo 3.17 identifies; the package is installed as a user would, and its command runs outside the checkout.
LIGHT := tests/light tests/cli tests/data tests/parameters/test_paths.py tests/core/test_gauss_newton.py tests/core/test_tridiagonal.py \
	tests/physics/test_batch.py
light: $(VENV)-light/stamp $(VENV)/dev.stamp
	$(VENV)-light/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--force-reinstall .
	DSO_PEER_PYTHON=$(abspath $(BIN))/python $(VENV)-light/bin/python -m pytest -m "not slow" $(LIGHT)

$(VENV)-light/stamp: requirements/light.txt
	$(PYTHON) -m venv --clear $(VENV)-light
	$(VENV)-light/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes \
		-r requirements/light.txt
	@touch $@

# The site, complete without a network: .cache/site/index.html. Warnings are errors.
docs: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

dist: $(VENV)/dev.stamp
	rm -rf dist && $(BIN)/python -m build --no-isolation

# Brax needs an older JAX than dso; benchmarks/policy.py starts it in an environment of its own.
bench-brax: $(VENV)-brax/stamp

$(VENV)-brax/stamp: requirements/brax.txt
	$(PYTHON) -m venv $(VENV)-brax
	$(VENV)-brax/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/brax.txt
	@touch $@

# The Kalman filters that benchmarks/estimate.py compares with: dynamax and cuthbert, beside all that dso needs.
bench-filters: $(VENV)-filters/stamp

$(VENV)-filters/stamp: pyproject.toml requirements/run.txt requirements/filters.txt
	$(PYTHON) -m venv $(VENV)-filters
	$(VENV)-filters/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(VENV)-filters/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/filters.txt
	$(VENV)-filters/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# figaroh plans trajectories for benchmarks/excite.py. Its solver cyipopt is built here: it needs a C compiler and the headers of
# IPOPT, BLAS and LAPACK (Debian: coinor-libipopt-dev, liblapack-dev).
bench-figaroh: $(VENV)-figaroh/stamp

$(VENV)-figaroh/stamp: requirements/figaroh.in
	$(PYTHON) -m venv $(VENV)-figaroh
	$(VENV)-figaroh/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/figaroh.in
	@touch $@

lock:
	$(LOCK) --extra mjx pyproject.toml -o requirements/run.txt
	$(LOCK) --constraint requirements/run.txt --extra dev pyproject.toml -o requirements/dev.txt
	$(LOCK) --constraint requirements/run.txt --extra dev --extra bench pyproject.toml -o requirements/bench.txt
	$(LOCK) pyproject.toml requirements/light.in -o requirements/light.txt
	$(LOCK) requirements/brax.in -o requirements/brax.txt
	$(LOCK) --constraint requirements/run.txt requirements/filters.in -o requirements/filters.txt

clean:
	rm -rf $(VENV) $(VENV)-light $(VENV)-brax $(VENV)-filters $(VENV)-figaroh .cache dist demo-result

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml requirements/run.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# --no-compile: Python compiles what it imports, a small part of it, when it first does.
$(VENV)/dev.stamp: pyproject.toml requirements/dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
