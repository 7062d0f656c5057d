# Every target works on a fresh clone; PYTHON may name another interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the tests need, each with a program of it that tells whether it is there.
SYSTEM_PACKAGES := adb chromium cpio e2fsprogs:mke2fs fuse3:fusermount3 g++ git make mmdebstrap \
  openssh-server:sshd qemu-system-arm:qemu-system-aarch64 qemu-system-x86:qemu-system-x86_64 strace \
  util-linux:unshare
INSTALL := sh tests/system_packages.sh
# Keeps the repository's root off sys.path, where models/ and datasets/ would shadow others' packages.
export PYTHONSAFEPATH := 1

.PHONY: demo docs test test-board test-fresh test-fresh-examples test-roots test-soak lint check benchmarks benchmarks-aligned benchmarks-devices benchmarks-layerwise benchmarks-models benchmarks-networks benchmarks-predictors benchmarks-protocol benchmarks-trust system-packages test-lowest clean

# sim:board, which rehearses joules on a machine without a meter, needs fuse3.
demo: $(VENV)/.installed
	@$(INSTALL) --optional fuse3:fusermount3
	$(BIN)/joulemap demo

# What measures this machine, and waits until it has nothing else to do.
MEASURING_TESTS := tests/device_agents/meters/test_on_a_simulated_board.py \
  tests/device_agents/onboard/energy/test_power_log.py tests/device_agents/simulated/test_board_files.py \
  tests/device_agents/simulated/test_board_transport.py tests/profiler/command_line/test_cli_measuring.py \
  tests/profiler/campaign/test_layers.py tests/test_docs.py tests/test_measuring_notebooks.py
OTHER_TESTS := $(filter-out $(MEASURING_TESTS),$(wildcard tests/test_*.py)) tests/profiler \
  tests/device_agents tests/models tests/datasets

# What computes or waits runs in two processes, the longest files first; what measures this machine
# has it to itself, since a campaign waits for a quiet one.
test: system-packages $(VENV)/.installed-test test-roots
	$(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder $(OTHER_TESTS) $(MEASURING_TESTS:%=--ignore=%)
	$(BIN)/pytest $(MEASURING_TESTS)

# Whole campaigns on an emulated arm64 board over ssh: and adb:, with faults, and meters on the
# kernel's own drivers: about six minutes.
test-board: system-packages $(VENV)/.installed-test
	$(BIN)/python tests/board/roots.py build board
	$(BIN)/python tests/board/roots.py build sensors
	$(BIN)/pytest -m board tests/board

# The first commands of the README in a Debian that has nothing but make: an hour.
test-fresh: system-packages
	$(PYTHON) tests/board/bare_root.py make demo test

# The root file systems in which tests run a phone's daemon: seconds, once, into ~/.cache.
test-roots: system-packages $(VENV)/.installed-test
	@$(BIN)/python tests/board/roots.py build phone >/dev/null

# One campaign through two hundred random faults, five hundred windows of each kind of meter: a quarter of an hour;
# then property tests with five hundred examples each that no run before has drawn.
test-soak: system-packages $(VENV)/.installed-test
	$(BIN)/pytest -m soak
	$(BIN)/pytest --hypothesis-profile soak --timeout 3600 -m hypothesis \
	  $(shell grep -rl --include='test_*.py' hypothesis tests)

# Two minutes of examples that no run before has drawn, of property tests in another order each time.
# SEED=... repeats one; a failure prints its command.
test-fresh-examples: system-packages $(VENV)/.installed-test
	$(BIN)/python tests/fresh_examples.py $(SEED)

# What the package needs at the lowest versions that pyproject.toml allows, in an environment of its
# own, and tests of what touches them: minutes. torch is the one of development, whose CPU build is
# small: older ones come with three gigabytes of CUDA, and TORCH=2.4.0 and 2.5.1 fail in the exports.
# Old packages warn of newer ones below them, so deprecations are no errors here.
LOWEST ?= .venv-lowest
TORCH ?= $(lastword $(subst ==, ,$(filter torch==%,$(file < constraints-dev.txt))))
LOWEST_TESTS := tests/datasets/test_contracts.py tests/datasets/test_cost_dataset.py \
  tests/models/linear/test_flops.py tests/models/test_export.py tests/models/test_plots.py \
  tests/models/test_serialization.py tests/profiler/networks/test_factories.py \
  tests/profiler/report/test_charts.py tests/profiler/templates/test_generic_widths.py
test-lowest:
	@$(INSTALL) python3-venv:$(PYTHON)
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --quiet uv
	echo 'torch==$(TORCH)' > $(LOWEST)/held.txt
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct \
	  --constraint $(LOWEST)/held.txt --editable '.[adb,nvidia,simulated]'
	$(LOWEST)/bin/uv pip freeze --quiet --python $(LOWEST) --exclude-editable > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --constraint $(LOWEST)/lowest.txt \
	  hypothesis pytest pytest-timeout pytest-xdist threadpoolctl
	$(LOWEST)/bin/joulemap --help > $(LOWEST)/help.txt
	$(LOWEST)/bin/pytest -W ignore::DeprecationWarning -W ignore::FutureWarning $(LOWEST_TESTS)

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

# Which public networks derive a width space, and the table of docs/networks.md: an hour; the same
# command goes on where one was stopped.
benchmarks-networks: $(VENV)/.installed-test
	PYTHONSAFEPATH= $(BIN)/python benchmarks/networks.py --out runs/networks --page docs/networks.md

# What docs/trust.md tells: three hours, or a share of it in a folder of its own (SHARE=0.1: under
# twenty minutes); the same command goes on where one was stopped.
SHARE ?= 1
benchmarks-trust: $(VENV)/.installed-test
	PYTHONSAFEPATH= $(BIN)/python benchmarks/trust.py --share $(SHARE) --out runs/trust-$(SHARE)

# As root, or by sudo where that asks for no password; else it ends with the line to run.
system-packages:
	@$(INSTALL) $(SYSTEM_PACKAGES)

$(VENV)/bin/pip:
	@$(INSTALL) python3-venv:$(PYTHON)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "joulemap needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints-dev.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints-dev.txt --editable '.[simulated]'
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints-dev.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints-dev.txt --editable '.[test]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) $(LOWEST) build dist joulemap-demo .mypy_cache .ruff_cache .pytest_cache
