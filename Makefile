# Every target works on a fresh clone; PYTHON may name another interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SYSTEM_PACKAGES := adb chromium cpio e2fsprogs fuse3 g++ git make mmdebstrap openssh-server \
  qemu-system-arm qemu-system-x86 strace util-linux
# Keeps the repository's root off sys.path, where models/ and datasets/ would shadow others' packages.
export PYTHONSAFEPATH := 1

.PHONY: demo docs test test-board test-roots test-soak lint check benchmarks benchmarks-aligned benchmarks-devices benchmarks-layerwise benchmarks-models benchmarks-predictors benchmarks-protocol benchmarks-trust system-packages clean

demo: $(VENV)/.installed
	$(BIN)/joulemap demo

# What measures this machine, and waits until it has nothing else to do.
MEASURING_TESTS := tests/device_agents/meters/test_on_a_simulated_board.py \
  tests/device_agents/onboard/test_power_log.py tests/device_agents/simulated/test_board_files.py \
  tests/device_agents/simulated/test_board_transport.py tests/profiler/test_cli_measuring.py \
  tests/profiler/test_layers.py tests/test_docs.py tests/test_measuring_notebooks.py
OTHER_TESTS := $(filter-out $(MEASURING_TESTS),$(wildcard tests/test_*.py)) tests/profiler \
  tests/device_agents tests/models tests/datasets

# What computes or waits runs in two processes, the longest files first; what measures this machine
# has it to itself, since a campaign waits for a quiet one.
test: $(VENV)/.installed-test test-roots
	$(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder $(OTHER_TESTS) $(MEASURING_TESTS:%=--ignore=%)
	$(BIN)/pytest $(MEASURING_TESTS)

# Whole campaigns on an emulated arm64 board over ssh: and adb:, with faults, and meters on the
# kernel's own drivers: about six minutes.
test-board: $(VENV)/.installed-test
	$(BIN)/python tests/board/roots.py build board
	$(BIN)/python tests/board/roots.py build sensors
	$(BIN)/pytest -m board tests/board

# The root file systems in which tests run a phone's daemon: seconds, once, into ~/.cache.
test-roots: $(VENV)/.installed-test
	@$(BIN)/python tests/board/roots.py build phone >/dev/null

# One campaign through two hundred random faults, five hundred windows of each kind of meter: a quarter of an hour;
# then property tests with examples that no run before has drawn.
test-soak: $(VENV)/.installed-test
	$(BIN)/pytest -m soak
	$(BIN)/pytest --hypothesis-profile search $(shell grep -rl --include='test_*.py' hypothesis tests)

# The site: these pages and the reference from the docstrings, warnings are errors.
docs: $(VENV)/.installed-test
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin -t=3.9- --no-tips --quiet device_agents/onboard device_agents/runtimes device_agents/meters

check: lint docs test

# Print the figures of docs/figures.md: the first on an otherwise idle machine in about three
# minutes, the second in about half an hour, most of it simulation.
benchmarks: $(VENV)/.installed-test
	$(BIN)/python benchmarks/materialise.py
	$(BIN)/python benchmarks/campaign.py
	$(BIN)/python benchmarks/cost_module.py
	$(BIN)/python benchmarks/command_line.py

# An hour and a half of measuring in runs/aligned, which the same command continues.
benchmarks-aligned: $(VENV)/.installed-test
	$(BIN)/python benchmarks/aligned.py --out runs/aligned

# A quarter of an hour of measuring in runs/layerwise, which the same command continues.
benchmarks-layerwise: $(VENV)/.installed-test
	$(BIN)/python benchmarks/layerwise.py --out runs/layerwise

# Intervals, transfer, seconds of fits, budgets, active sampling: an hour, half of it measuring.
benchmarks-models: $(VENV)/.installed-test
	$(BIN)/python benchmarks/fit_speed.py
	$(BIN)/python benchmarks/intervals.py
	$(BIN)/python benchmarks/transfer.py
	$(BIN)/python benchmarks/budget.py --out runs/budget
	$(BIN)/python benchmarks/active.py --out runs/active

benchmarks-protocol: $(VENV)/.installed-test
	$(BIN)/python benchmarks/noise.py
	$(BIN)/python benchmarks/protocol.py

# An hour of fitting, no measuring; runs/predictors/predictors.html shows it.
benchmarks-predictors: $(VENV)/.installed-test
	PYTHONSAFEPATH= $(BIN)/python benchmarks/predictors.py --out runs/predictors
	$(BIN)/python benchmarks/systolic.py

# Devices over SSH, and meters against known energies: half an hour, most of it measuring.
benchmarks-devices: $(VENV)/.installed-test
	$(BIN)/python benchmarks/remote.py
	$(BIN)/python benchmarks/meters.py

# What docs/trust.md tells: three hours, or a share of it in a folder of its own (SHARE=0.1: under
# twenty minutes); the same command goes on where one was stopped.
SHARE ?= 1
benchmarks-trust: $(VENV)/.installed-test
	PYTHONSAFEPATH= $(BIN)/python benchmarks/trust.py --share $(SHARE) --out runs/trust-$(SHARE)

system-packages:
	@missing=""; for package in $(SYSTEM_PACKAGES); do \
	  dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then as=""; else as="sudo"; fi; \
	  $$as apt-get update -qq && \
	  $$as apt-get install -y -qq --no-install-recommends $$missing; \
	fi

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "joulemap needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints-dev.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints-dev.txt --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints-dev.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints-dev.txt --editable '.[test]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist joulemap-demo .mypy_cache .ruff_cache .pytest_cache
