# Wardpost from a checkout. `make help` lists what there is; everything is made inside this folder.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
export WARDPOST_CACHE ?= $(CURDIR)/.cache/assets
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# picamera2 for the tests that need no camera: on a Raspberry Pi it comes from apt, here from a pinned list.
CAMERA_REQUIREMENTS ?= $(wildcard tests/requirements-camera.txt)
# What `make test-system` takes from Debian, and the program that shows that a package is there already.
SYSTEM_PACKAGES := mosquitto:mosquitto motion:motion debootstrap:debootstrap ffprobe:ffmpeg chromium:chromium nbdfuse:libnbd-bin fusermount3:fuse3 mke2fs:e2fsprogs \
  mmdebstrap:mmdebstrap qemu-system-x86_64:qemu-system-x86 nbdkit:nbdkit gcc:gcc \
  pg_ctlcluster:postgresql prometheus:prometheus turnserver:coturn nft:nftables ip:iproute2 mcopy:mtools mkfs.vfat:dosfstools sfdisk:fdisk ssh-keygen:openssh-client systemd-nspawn:systemd-container
# Tests that no clock hurries: they follow the simulator, beside the others.
PATIENT := tests/system/test_soak.py
# Stories with long waits, and what has servers or processes of its own: beside the others from the beginning.
WAITING := tests/e2e/test_demo.py tests/e2e/test_chaos.py tests/system/test_release.py tests/system/test_live_page.py tests/fuzz/test_atheris.py \
  tests/system/test_station_postgres.py tests/system/test_evidence_packages.py tests/system/test_home_assistant.py
PYTEST := $(BIN)/python -m pytest
# Over three processes: many tests wait. The simulator goes alone: it forks thousands of lives, and a fork of a process
# that has loaded every other test costs four times as much.
SPREAD := -n 3 --dist loadfile --no-loadscope-reorder
ARGS ?=
# What needs the network, which may be away for a moment.
THRICE := thrice() { for pause_s in 10 30; do "$$@" && return 0; echo "once more in $$pause_s s: $$1" >&2; sleep "$$pause_s"; done; "$$@"; }

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.ready ## .venv with .venv/bin/wardpost, from the pinned list; once, then it needs no network

# compileall: where the machine says PYTHONDONTWRITEBYTECODE, every process would compile the agent anew, a second each.
$(VENV)/.ready: requirements.lock pyproject.toml $(CAMERA_REQUIREMENTS)
	@set -e; python='$(PYTHON)'; \
	for candidate in $${python:-$(CURDIR)/$(BIN)/python python3 python3.13 python3.12 python3.11}; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	  python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make setup: no Python 3.11 or newer here (python3 is $$(python3 --version 2>&1 || true));" \
	       "install one (Debian 12 or newer: apt install python3 python3-venv) or name it: make setup PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "make setup: $$python cannot make virtual environments; install the package" \
	       "$$("$$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])') (as root: apt install python3-venv)" >&2; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import pip' 2>/dev/null || [ "$$("$$python" -V)" != "$$($(BIN)/python -V)" ]; then \
	  rm -rf $(VENV); "$$python" -m venv $(VENV); \
	fi; \
	echo "setting up $(VENV) with $$("$$python" -V), about a minute if nothing is there yet"; \
	retry='make setup: the Python packages could not be installed; the lines above say why. Is the network there? Then say it again.'; \
	$(THRICE); \
	if ! cmp -s requirements.lock $(VENV)/.installed; then \
	  thrice $(BIN)/python -m pip install -qq --require-hashes --only-binary :all: -r requirements.lock || { echo "$$retry" >&2; exit 1; }; \
	  cp requirements.lock $(VENV)/.installed; \
	fi; \
	if [ -n '$(CAMERA_REQUIREMENTS)' ] && ! cmp -s '$(CAMERA_REQUIREMENTS)' $(VENV)/.installed-camera; then \
	  thrice $(BIN)/python -m pip install -qq --require-hashes --no-deps -r '$(CAMERA_REQUIREMENTS)' || { echo "$$retry" >&2; exit 1; }; \
	  cp '$(CAMERA_REQUIREMENTS)' $(VENV)/.installed-camera; \
	fi; \
	$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e .; \
	$(BIN)/python -m compileall -q -j 0 agent; \
	touch $@

.PHONY: assets
assets: setup ## the pinned model and the sample footage, into .cache/assets
	@$(THRICE); thrice $(BIN)/python -m agent.assets >/dev/null

.PHONY: demo
demo: assets ## the whole product on this machine, in about 75 s (CAMERA=URL: on your own camera)
	@$(BIN)/wardpost demo $(if $(CAMERA),--camera '$(CAMERA)')

.PHONY: test
test: assets ## every test that needs no root (ARGS="-k name" picks some)
	@if [ -n '$(ARGS)' ]; then exec $(PYTEST) -q -m 'not system' $(SPREAD) $(ARGS); fi; \
	rc=0; $(PYTEST) -q -m 'not system' tests/sim || rc=$$?; \
	$(PYTEST) -q -m 'not system' $(SPREAD) --ignore=tests/sim || rc=$$?; exit $$rc

.PHONY: test-system
test-system: assets ## tests that need root, Debian packages or minutes; installs those packages
	@if [ "$$(id -u)" != 0 ]; then echo "make test-system: needs root: it installs packages and uses chroot; sudo make test-system" >&2; exit 1; fi
	@missing=; for pair in $(SYSTEM_PACKAGES); do \
	  command -v "$${pair%%:*}" >/dev/null || [ -x "/usr/sbin/$${pair%%:*}" ] || missing="$$missing $${pair##*:}"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "installing from Debian:$$missing"; \
	  $(THRICE); export DEBIAN_FRONTEND=noninteractive; thrice apt-get update -qq -o Acquire::Retries=5 && \
	  thrice apt-get install -y -qq --no-install-recommends -o Acquire::Retries=5 $$missing >/dev/null; \
	fi
	@$(THRICE); thrice $(BIN)/python -m pip install -qq --require-hashes --no-deps --only-binary :all: -r tests/requirements-system.txt
	@export PATH="$$PATH:/usr/sbin:/sbin"; mkdir -p test-out; \
	if [ -n '$(ARGS)' ]; then exec $(PYTEST) -q -m system --durations=25 $(ARGS); fi; \
	beside() { nice -n 19 $(PYTEST) -q -m system --durations=5 -s tests/sim && nice -n 10 $(PYTEST) -q -m system --durations=5 $(PATIENT); }; \
	set -m; beside >test-out/beside.log 2>&1 & lane=$$!; \
	$(PYTEST) -q -m system --durations=5 $(WAITING) >test-out/waiting.log 2>&1 & waiting=$$!; set +m; \
	trap 'kill -- -$$lane -$$waiting 2>/dev/null' EXIT; rc=0; \
	$(PYTEST) -q -m system --durations=25 --ignore=tests/sim $(addprefix --ignore=,$(PATIENT) $(WAITING)) || rc=$$?; \
	if wait $$waiting; then tail -n 20 test-out/waiting.log; else tail -n 200 test-out/waiting.log; rc=1; fi; \
	echo "the simulator has used the idle time of the other tests (test-out/beside.log); waiting for its end"; \
	if wait $$lane; then tail -n 80 test-out/beside.log; else tail -n 200 test-out/beside.log; rc=1; fi; \
	exit $$rc

.PHONY: lint
lint: setup ## ruff and mypy, without changing anything
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: format
format: setup ## ruff's formatter and its safe repairs
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: bench
bench: assets ## the figures, measured here (bench-out/)
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: bench-station
bench-station: assets ## the station's figures: intake, pages, memory (bench-out/; ARGS=--quick: five minutes)
	@$(BIN)/python -m tests.bench.station $(ARGS)

.PHONY: lock
lock: setup ## requirements.lock anew from pyproject.toml
	@$(BIN)/python -m pip install --quiet 'uv>=0.9,<1'
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --all-extras --upgrade --output-file requirements.lock pyproject.toml

.PHONY: clean
clean: ## removes what these commands have made, the cache of fetched files excepted
	@rm -rf $(VENV) build dist *.egg-info demo-out test-out bench-out .hypothesis
	@find agent tests -name __pycache__ -type d -prune -exec rm -rf {} +
