# make demo    the environment if it is missing, the quick recipe, and its report
# make test    the whole suite but what is marked slow
VENV ?= .venv
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup

.PHONY: demo test test-slow lint types clean

# One thread: the demo's networks are so small that a second one costs more than it brings.
demo: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/acn-cl run quick --report

# Some tests wait for other processes, which a busy machine may hold up: what failed is run once more, alone, and has to pass.
test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" || $(PYTEST) -n 0 -m "not slow" --last-failed --last-failed-no-failures none

# One at a time: some of these measure time.
test-slow: $(VENV)/.installed-dev
	$(PYTEST) -n 0 -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	rm -rf build/types
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/types .
	cd build/types && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p acn_cl

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) runs report build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
