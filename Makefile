# Everything from a clean clone with Python 3.11 and make:
#   make demo            set up what that needs, then act, learn and report in unseen homes   (QUICK=1: two minutes)
#   make test            set up, then the whole test suite
#   make check           lint, types, import layers
#   make bench           side-by-side benchmarks
#   make wheel           the package as it is uploaded, in dist/
#   make torture         an hour of damaged files and kills; writes the table in docs/promises.md
#   make mutants         change the source in one place after another; its tests must notice
#   make soak            a server under hostile clients for half an hour      (MINUTES=2: shorter)
#   make licences, lock  write THIRD_PARTY.md, requirements-dev.lock
#   make docs            the documentation as a site, in build/docs
#   make test-extras     ONNX export and rerun files, whose packages are heavy
#   make test-lerobot    round trips through LeRobot's own tools, in a virtual environment of their own
#   make test-benchmarks the adapters to LIBERO and LIBERO-Plus, MetaWorld, ALOHA and PushT, in a virtual environment of their own
# Another interpreter: make test PYTHON=/path/to/python3.11

VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
PIP     = $(BIN)/python -m pip install --disable-pip-version-check
PYTHON ?= $(shell for p in python3.11 python3 python; do command -v $$p && break; done || echo python3.11)

# Two processes share the cores: threads that spin while they wait would slow each other down.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-benchmarks test-extras test-lerobot check bench torture wheel mutants soak licences lock install-locked docs install preflight clean

# What developers have is enough for the demo; everybody else installs a third of it.
demo: preflight $(if $(wildcard $(STAMP)),install,$(DEMO_STAMP))
	$(BIN)/python -m pilot.sims.gl
	$(BIN)/pilot demo $(if $(QUICK),--quick)

test: preflight install
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

# Their packages want other versions of MuJoCo and half a gigabyte, so they never share the environment of the rest.
# LIBERO-Plus wants NumPy 1, which ends at Python 3.12: beyond, its tests are skipped.
BENCHMARKS := .venv-benchmarks
LIBERO_PLUS = $(shell $(PYTHON) -c 'import sys; print(",libero-plus" if sys.version_info < (3, 13) else "")')
test-benchmarks: preflight
	test -x $(BENCHMARKS)/bin/python || $(PYTHON) -m venv $(BENCHMARKS)
	$(BENCHMARKS)/bin/python -m pip install --disable-pip-version-check --quiet --editable '.[torch,pusht,aloha,metaworld,libero$(LIBERO_PLUS)]' pytest
	$(BENCHMARKS)/bin/python -m pytest -c /dev/null --rootdir . -p no:cacheprovider tests/external/check_benchmarks.py

# LeRobot wants older versions of much, so it never shares the environment of the rest.
LEROBOT := .venv-lerobot
test-lerobot:
	test -x $(LEROBOT)/bin/python || $(PYTHON) -m venv $(LEROBOT)
	$(LEROBOT)/bin/python -m pip install --disable-pip-version-check --quiet --editable '.[torch,video]' 'lerobot==0.4.4' pytest
	PYTHONPATH=tests $(LEROBOT)/bin/python -m pytest -c /dev/null --rootdir . -p no:cacheprovider tests/external/check_lerobot.py

# Extras that are too heavy for `all`: the exporter of ONNX, and half a gigabyte of viewer. Without them their tests are skipped.
test-extras: preflight install
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[onnx,rerun]'
	$(BIN)/python -m pytest -n 0 tests/infer/test_onnx_export.py tests/data/tools/test_rerun_log.py tests/eval/test_rollout_log.py

check: install
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_style.py

torture: preflight install
	PYTHONPATH=tests $(BIN)/python tests/torture/run.py

bench: preflight install
	@for script in $(filter-out bench/mutants.py bench/mutations.py bench/soak.py,$(wildcard bench/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

mutants: install
	$(BIN)/python bench/mutants.py $(MUTANTS)

MINUTES ?= 30
soak: install
	$(BIN)/python bench/soak.py --minutes $(MINUTES)

licences: install
	$(BIN)/python .ci/licences.py > THIRD_PARTY.md

lock: install
	$(BIN)/python .ci/lock.py

# Exactly the files that were hashed, on the system that the lock names.
install-locked:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .

# The site's tools read the code and never run it, so they need neither torch nor a simulator.
DOCS := .venv-docs
docs:
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --disable-pip-version-check --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet
	@echo "Open build/docs/index.html, or: $(DOCS)/bin/python -m http.server --directory build/docs"

# It brings the checkpoint of `pilot demo`, and stays small.
MOST_BYTES := 15000000
wheel:
	rm -rf build/lib build/bdist.* dist
	$(PYTHON) -m pip wheel --disable-pip-version-check --quiet --no-deps --wheel-dir dist .
	@set -- dist/pilot-*.whl; size=$$(wc -c < "$$1"); echo "$$1: $$size bytes"; test "$$size" -le $(MOST_BYTES)

install: $(STAMP)

define NEEDS_PYTHON
import sys
if sys.version_info < (3, 11):
    sys.exit("pilot needs Python 3.11 or newer, but %s is %d.%d. Install it, or say where it is:\n"
             "  make PYTHON=/path/to/python3.11" % ((sys.executable,) + sys.version_info[:2]))
endef
export NEEDS_PYTHON

# On Linux, pip's own torch brings gigabytes of CUDA, which is of no use without an NVIDIA GPU. The smaller one is tried
# first; where its index does not answer, pip takes what it finds.
TORCH       := torch>=2.7,<2.14
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
define NEW_ENVIRONMENT
@$(PYTHON) -c "$$NEEDS_PYTHON"
@test -x $(BIN)/python || { echo "Setting up $(VENV), once; some minutes, and pip is silent at the end of them ..."; $(PYTHON) -m venv $(VENV); }
@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && ! $(BIN)/python -c 'import torch' 2>/dev/null; then \
    $(PIP) --quiet --retries 0 --timeout 5 --index-url $(TORCH_INDEX) '$(TORCH)' 2>/dev/null || true; fi
endef

# The stamp comes last: an interrupted installation is taken up again, never taken for whole.
$(STAMP): pyproject.toml
	$(NEW_ENVIRONMENT)
	$(PIP) --editable '.[all,dev]'
	@touch $@

$(DEMO_STAMP): pyproject.toml
	$(NEW_ENVIRONMENT)
	$(PIP) --editable '.[demo]'
	@touch $@

# Said before the long installation: physics runs anywhere, but pictures need a GL library of the system.
define PREFLIGHT
import ctypes, sys
def loads(name):
    try: return bool(ctypes.CDLL(name))
    except OSError: return False
if sys.platform.startswith("linux") and not any(map(loads, ["libEGL.so.1", "libOSMesa.so.8", "libOSMesa.so.6"])):
    sys.exit("No GL library: the simulator cannot draw. Install one (no display or GPU needed), then run this again:\n"
             "  Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri\n"
             "  Fedora:         dnf install mesa-libEGL mesa-dri-drivers")
endef
export PREFLIGHT
preflight:
	@$(PYTHON) -c "$$PREFLIGHT"

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
