# demo: see it work on this machine.   test: everything that must hold before a commit.
# check: the static half of test.      docs: the documentation, in site/.
# lock: the newest versions that fit, with hashes, in requirements.lock; LOCKED=1 make test installs these.

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

# pyright would ask the network whether there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := test
.PHONY: demo test check docs lock

demo: $(VENV)/.ready-run
	$(BIN)/pyrafuse demo

# Two test processes share two cores: without this each starts a thread pool of its own and both crawl.
test: export OMP_NUM_THREADS = 1
test: check
	$(BIN)/pytest -n $(WORKERS)

check: $(VENV)/.ready-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

docs: $(VENV)/.ready-docs
	$(BIN)/mkdocs build --strict

# For every platform and Python at once, which pip cannot: needs uv.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --quiet \
		--extra export --extra search --extra ray --extra serve --group dev --group docs --upgrade --output-file requirements.lock

# A stamp per set of dependencies: a second run installs nothing.
$(VENV)/.ready-%: pyproject.toml scripts/setup
	scripts/setup $*
