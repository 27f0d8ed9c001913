# make demo    sets everything up, generates "a red armchair" and says where the files are
# make test    sets everything up and runs the tests

PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv

BIN     := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO    := outputs/a-red-armchair

.PHONY: help demo test lint types layers check wheel docs FORCE
.DELETE_ON_ERROR:

help:
	@echo "make demo     set up, generate \"a red armchair\" into outputs/"
	@echo "make test     set up, run the tests (ARGS=... is passed on to pytest)"
	@echo "make check    tests, linter, types and layers"
	@echo "make lint | types | layers    one of them"
	@echo "make wheel    build dist/*.whl"
	@echo "make docs     build the documentation into site/"
	@echo
	@echo "PYTHON=$(PYTHON) TORCH=$(TORCH) VENV=$(VENV) can be replaced: make demo TORCH=torch==2.12.1"

demo: $(VENV)/core.stamp
	@mkdir -p outputs
	@$(BIN)/diffsplat generate "a red armchair" -o $(DEMO).ply --preview png --force
	@$(BIN)/diffsplat render $(DEMO).ply --turntable $(DEMO).mp4 --force
	@echo "Open the .ply in any splat viewer, the .png and .mp4 in any other."

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	@$(BIN)/basedpyright

layers: $(VENV)/dev.stamp
	@$(BIN)/lint-imports

check: lint types layers test

wheel: $(VENV)/dev.stamp
	@$(BIN)/python -m build --wheel

docs: $(VENV)/core.stamp
	@$(INSTALL) --editable ".[docs]"
	@$(BIN)/mkdocs build --strict

# What a set-up depends on besides pyproject.toml: its file changes only when the choice of torch does.
$(VENV)/torch.choice: FORCE
	@mkdir -p $(VENV)
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(VENV)/core.stamp: pyproject.toml $(VENV)/torch.choice
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "diffsplat needs Python 3.11 or newer, not $$($(PYTHON) --version 2>&1); say which: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: apt-get install python3-venv) and run make again" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(TORCH), once; this takes some minutes ..."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) "$(TORCH)"
	@$(INSTALL) --editable .
	@touch $@

# torch is there already, so that nothing in the extras can choose another one.
$(VENV)/dev.stamp: $(VENV)/core.stamp
	@echo "Adding what training, data and tests need ..."
	@$(INSTALL) --editable ".[train,data,dev]"
	@touch $@
