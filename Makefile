# Every target runs in .venv. The first one that needs it creates it, with the exact versions of constraints.txt, and it is
# kept until settings.ini, setup.py or constraints.txt change. Needs python3 (3.11 or newer) with pip, and make.

PYTHON ?= python3
VENV ?= .venv
OUT ?= results/demo
WORKERS ?= 2
NB ?=
OF ?=
N ?= 50
DATA ?= $(CPVAE_DATA)

BENCH ?= .venv-bench
ENDS := .venv-newest .venv-oldest
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOG := $(VENV)/install.log

# Waiting OpenMP threads must sleep: spinning ones bring processes that share cores to a standstill.
export OMP_WAIT_POLICY := PASSIVE
# Tests run side by side, so each process has one thread; OpenBLAS spins whatever the policy says.
notebooks pytest test-quick test-newest test-oldest: export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install browser demo test test-quick notebooks pytest test-newest test-oldest export sync refresh docs format lint readme canary coverage mutants wheel bench bench-nulls bench-reading paper checklist clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(READY) ## create .venv with everything the project needs

demo: $(READY) ## the whole pipeline on simulated profiles; OUT=folder (default results/demo)
	$(BIN)/cpvae demo --out $(OUT)

test: notebooks pytest ## run every notebook as a test, then tests/; WORKERS=n at a time (default 2)

test-quick: $(READY) ## the same for one part, without tests that take over two seconds; OF="lsa nulls" (default: what changed since the last commit)
	$(BIN)/python tools/quick.py $(OF)

notebooks: $(READY)
	$(BIN)/nbdev_test --n_workers $(WORKERS) --do_print --timing

pytest: $(READY)
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal

browser: ## install Chromium, in which the report is tested, where apt can (as root)
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium)

test-newest: .venv-newest/.ready ## the same with the newest version of everything but torch, in an environment of its own

test-oldest: .venv-oldest/.ready ## the same with the lower bounds in settings.ini, in an environment of its own

test-newest test-oldest:
	$(@:test-%=.venv-%)/bin/nbdev_test --n_workers $(WORKERS) --do_print --timing
	$(@:test-%=.venv-%)/bin/pytest -q -n $(WORKERS) --dist worksteal --deselect tests/test_project.py::test_constraints_pin_all_that_is_used

export: $(READY) ## write the package from the notebooks, docments as docstrings
	$(BIN)/python tools/export.py

sync: $(READY) ## export into an empty package, clean notebooks, rebuild README.md: fail if anything changes
	$(BIN)/python tools/sync.py

refresh: $(READY) ## run notebooks from top to bottom and keep their outputs; NB=file for one
	$(BIN)/python tools/refresh.py $(NB)
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/site_pages.py

docs: $(READY) ## fail unless every public name is documented, the site's pages convert, and links and references are there
	$(BIN)/python tools/check_docs.py
	$(BIN)/python tools/check_links.py

CODE := nbs tests tools benchmarks setup.py

format: $(READY) ## lay out notebooks, tests and tools as ruff does, at 100 characters
	$(BIN)/ruff format $(CODE)

lint: $(READY) ## fail unless code is laid out so, ruff finds nothing, and no room imports from a floor above it
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff check --isolated --select F cpvae
	$(BIN)/lint-imports --no-cache

readme: $(READY) ## write README.md from nbs/index.ipynb
	$(BIN)/python tools/readme.py

canary: $(READY) ## prove that broken notebooks make the tests fail
	$(BIN)/python tools/canary.py

coverage: $(READY) ## how much of the package the notebooks and tests/ run
	$(BIN)/coverage erase
	$(BIN)/coverage run tools/cover_notebooks.py
	$(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

mutants: $(READY) ## which small faults of the package its tests let through; OF="lsa model" (default: seven floors), N=50 a floor; goes on where it was
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python tools/mutants.py $(N) $(OF)

wheel: $(READY) ## build the package and import it in an environment without development tools
	$(BIN)/python tools/check_wheel.py

bench: $(BENCH)/.ready ## how fast models train, beside matrix products and pythae 0.1.2 (ten minutes, in an environment of its own)
	env -u OMP_NUM_THREADS $(BENCH)/bin/python benchmarks/training.py

bench-nulls: $(READY) ## how fast the permutation tests are, beside a plain loop (three minutes)
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/nulls.py

bench-reading: $(READY) ## seconds and memory to read profiles, beside pandas and cmapPy; FULL=1 for published sizes
	$(BIN)/python benchmarks/reading.py $(if $(FULL),--full)

paper: $(READY) ## make the tables of the paper's studies from real profiles and compare with the committed ones; DATA=folder, TOOLS="performance ..."
	@test -n "$(DATA)" || { echo 'name the folder of the public tables: make paper DATA=folder' >&2; exit 2; }
	$(BIN)/python nbs/paper/tables/paper.py $(DATA) $(TOOLS)

checklist: $(READY) ## where each figure, table and claim of the paper is answered
	$(BIN)/python tools/checklist.py

clean: ## delete the environments, builds and caches (not results/)
	rm -rf $(VENV) $(BENCH) $(ENDS) build dist *.egg-info _proc _docs .pytest_cache .ruff_cache .coverage .coverage.*

$(READY): settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cpvae needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing into $(VENV) (minutes the first time); log: $(LOG)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || \
	  { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip >$(LOG) 2>&1; } || \
	  { echo "No virtual environment could be made with $(PYTHON): it needs its venv module and pip" >&2; exit 1; }
	@$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[dev]' >$(LOG) 2>&1 || { tail -n 30 $(LOG) >&2; exit 1; }
	@$(BIN)/python -m compileall -q -j 0 -x '/tests/' $(VENV)/lib >>$(LOG) 2>&1 || true # on all cores; pip has one. What cannot be compiled is nothing that is imported
	@touch $@

$(BENCH)/.ready: settings.ini setup.py constraints.txt
	@$(PYTHON) -m venv --clear $(BENCH)
	@$(BENCH)/bin/python -m pip install -q -c constraints.txt -e . pythae==0.1.2
	@touch $@

$(ENDS:%=%/.ready): .venv-%/.ready: settings.ini setup.py constraints.txt tools/bounds.py
	@$(PYTHON) -m venv --clear .venv-$*
	@$(PYTHON) tools/bounds.py $* >.venv-$*/constraints.txt
	@.venv-$*/bin/python -m pip install -q -c .venv-$*/constraints.txt -e '.[dev]'
	@touch $@
