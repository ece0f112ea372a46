# The README's two commands are `make demo` and `make test`. Every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# lmms-eval has an environment of its own.
BRIDGE_VENV ?= .bridge-venv
BRIDGE := $(BRIDGE_VENV)/bin
# Two threads are the tested size; tiny models only lose by more.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM ?= false

.PHONY: setup demo test test-all check bench bridge bridge-test clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("peeralign needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and alone: with it in place nothing can pull in another build.
	$(BIN)/pip install --quiet 'setuptools>=77' wheel -c constraints.txt
	$(BIN)/pip install --quiet torch -c constraints.txt
	$(BIN)/pip install --quiet --editable '.[dev]' -c constraints.txt
	@# Apart, where only the tests of some model families look: it must not enter the environment.
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(VENV)/apart/torchvision torchvision num2words -c constraints.txt
	touch $@

setup: $(VENV)/.ready

demo: setup
	$(BIN)/peeralign demo

test: setup
	$(BIN)/pytest

test-all: setup
	$(BIN)/pytest -m 'slow or not slow'

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pytest tests/invariants

$(BRIDGE_VENV)/.ready: pyproject.toml constraints.txt requirements-bridge.txt
	test -x $(BRIDGE)/python || $(PYTHON) -m venv $(BRIDGE_VENV)
	$(BRIDGE)/pip install --quiet 'setuptools>=77' wheel -c constraints.txt
	$(BRIDGE)/pip install --quiet torch -c constraints.txt
	$(BRIDGE)/pip install --quiet --editable . -r requirements-bridge.txt -c constraints.txt
	$(BRIDGE)/pip install --quiet --no-deps lmms_eval==0.7.3
	touch $@

bridge: $(BRIDGE_VENV)/.ready

# lmms-eval's own code warns; ours is tested with warnings as errors elsewhere.
bridge-test: bridge
	$(BRIDGE)/pytest -W default tests/bridge

clean:
	rm -rf $(VENV) $(BRIDGE_VENV) runs
