# `make demo` and `make test` each set up everything they need in this checkout and run.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# A checkout on it would stand for what is installed in the environments below.
unexport PYTHONPATH

PYTHON ?= python3
# Installed by itself and first: pulled in as a dependency it may bring gigabytes of CUDA packages.
TORCH ?= torch==2.13.0
# The release that was made for it.
TORCHVISION ?= torchvision==0.28.0
# A built mmcv 2.1.0 for `make test-openmmlab`; without one it is compiled (half an hour).
MMCV_WHEEL ?= $(firstword $(wildcard ../shared/wheels/mmcv-2.1.0-*.whl))
# Processes that share the tests; 0 runs them in one.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CSRC := $(shell find bhvit_seg/csrc tests/csrc -name '*.cc' -o -name '*.h')
# Worksteal keeps most tests of a file together, so that few fixtures are made twice.
SHARED := -n $(WORKERS) --dist worksteal
# Where mmpretrain is installed, mmsegmentation imports it: an environment of its own, on top of
# $(VENV), so that all other tests run without it.
PRETRAIN := $(VENV)/pretrain
PRETRAIN_STAMP := $(PRETRAIN)/.installed
SITE := import sysconfig; print(sysconfig.get_path("purelib"))
OPENMMLAB := .venv-openmmlab
OPENMMLAB_BIN := $(OPENMMLAB)/bin
OPENMMLAB_STAMP := $(OPENMMLAB)/.installed

.PHONY: help demo test test-all lint install test-pretrain test-openmmlab test-sanitize test-neon test-armhf \
	test-aarch64 docs release wheel-aarch64 clean

help:
	@echo 'make demo            sample set, training, test, prediction and a contact sheet (minutes)'
	@echo 'make test            ruff and the test suite'
	@echo 'make test-all        the same with the tests marked slow'
	@echo 'make test-pretrain   the tests of classifiers, which need mmpretrain'
	@echo 'make test-openmmlab  the suite on the original OpenMMLab packages, in an environment of its own'
	@echo 'make test-sanitize   the engine under sanitizers, with thousands of damaged files (minutes)'
	@echo 'make test-neon       the NEON kernels, cross-compiled for arm64 and run by qemu'
	@echo 'make test-armhf      the engine on 32-bit ARM, in the same way'
	@echo 'make test-aarch64    the wheel of wheel-aarch64 in an arm64 Python that qemu runs'
	@echo 'make docs            the documentation as a site, in build/site'
	@echo 'make release         sdist and wheel in dist/, checked, and tried in an environment of its own'
	@echo 'make wheel-aarch64   cross-compiles a wheel for 64-bit ARM into dist/, on Debian'
	@echo 'make lint            ruff and clang-format alone'
	@echo 'make install         only the environment, in $(VENV)'
	@echo 'make clean           removes environments, caches and build products'

demo: $(STAMP)
	$(BIN)/python -m bhvit_seg demo

test: lint
	$(BIN)/python -m pytest $(SHARED) -m 'not slow' --ignore tests/models/classifiers

test-all: lint
	$(BIN)/python -m pytest $(SHARED) --ignore tests/models/classifiers

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/clang-format --dry-run --Werror $(CSRC)

install: $(STAMP)

test-pretrain: $(PRETRAIN_STAMP)
	$(PRETRAIN)/bin/python -m pytest $(SHARED) tests/models/classifiers

test-openmmlab: $(OPENMMLAB_STAMP)
	$(OPENMMLAB_BIN)/python -m pytest $(SHARED)

test-sanitize: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m csrc.checks sanitize

test-neon: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m csrc.checks neon

test-armhf: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m csrc.checks armhf

# The pages as they lie in the repository, by links. --strict: a link or an anchor that leads
# nowhere is an error.
PAGES := $(wildcard *.md docs configs/*/README.md bhvit_seg/zoo)

docs: $(VENV)/.extra-docs
	rm -rf build/pages build/site
	mkdir -p $(addprefix build/pages/,$(sort $(dir $(PAGES))))
	$(foreach page,$(PAGES),ln -s '$(CURDIR)/$(page)' 'build/pages/$(page)';)
	$(BIN)/python -m mkdocs build --strict

RELEASED := build/released

release: $(VENV)/.extra-release
	rm -rf dist $(RELEASED)
	BHVIT_REQUIRE_ENGINE=1 $(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m auditwheel show dist/*.whl
	$(PYTHON) -m venv $(RELEASED)
	$(RELEASED)/bin/python -m pip install --quiet "$$(echo dist/*.whl)[predict]" pytest
	PATH='$(CURDIR)/$(RELEASED)/bin':"$$PATH" bash tests/installed.sh

# An arm64 Python that qemu runs builds the wheel, so that tags, headers and flags are the target's;
# the compilers are this machine's. auditwheel finds the oldest glibc that the engine runs on.
ARM64 := build/arm64
ARM64_INCLUDE := $(ARM64)/root/usr/include

$(ARM64)/.complete: tests/arm64.sh $(STAMP)
	rm -rf $(ARM64)
	bash tests/arm64.sh $(ARM64)
	$(BIN)/python -m pip install --quiet --target $(ARM64)/build setuptools pybind11
	touch $@

wheel-aarch64: $(ARM64)/.complete $(VENV)/.extra-release
	rm -rf $(ARM64)/wheel dist/*_aarch64.whl build/lib.*aarch64*
	BHVIT_REQUIRE_ENGINE=1 PYTHONPATH=$(ARM64)/build \
		CPPFLAGS="-I$$(echo $(ARM64_INCLUDE)/python3*) -idirafter $(ARM64_INCLUDE)" $(ARM64)/bin/python -c \
		'from setuptools.build_meta import build_wheel; build_wheel("$(ARM64)/wheel")'
	PATH='$(abspath $(BIN))':"$$PATH" $(BIN)/python -m auditwheel repair --wheel-dir dist $(ARM64)/wheel/*.whl

# Its packages are installed by this machine's pip: that of the emulated Python takes minutes.
test-aarch64: wheel-aarch64
	rm -rf $(ARM64)/site
	set -- $$($(ARM64)/bin/python -c 'import platform; print(platform.python_version(), *platform.libc_ver()[1].split("."))'); \
		$(BIN)/python -m pip install --quiet --target $(ARM64)/site --only-binary :all: --python-version $$1 \
		$$(printf -- "--platform manylinux_$$2_%s_aarch64 " $$(seq $$3 -1 17)) "$$(echo dist/*_aarch64.whl)[predict]" pytest
	PATH='$(abspath $(ARM64)/bin)':"$$PATH" bash tests/installed.sh
	$(BIN)/python tests/other_python.py '$(abspath $(ARM64)/bin/python)'

# $(1): the folder of the new environment.
define new_environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	echo 'error: the mm packages need Python 3.10 or newer, and $(PYTHON) is not: make PYTHON=python3.11 ...' >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	echo 'error: $(PYTHON) has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv) or give another Python: make PYTHON=... ' >&2; exit 1; }
$(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet --upgrade pip
$(1)/bin/python -m pip install $(TORCH)
endef

# Installing builds the engine, so it depends on the engine's sources as well.
$(STAMP): setup.py pyproject.toml $(filter bhvit_seg/%,$(CSRC))
	$(call new_environment,$(VENV))
	$(BIN)/python -m pip install -e '.[mm,test]'
	touch $@

$(VENV)/.extra-%: $(STAMP)
	$(BIN)/python -m pip install 'bhvit_seg[$*]'
	touch $@

$(PRETRAIN_STAMP): $(STAMP)
	$(BIN)/python -m venv $(PRETRAIN)
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(SITE)')')" > "$$($(PRETRAIN)/bin/python -c '$(SITE)')/base.pth"
	$(PRETRAIN)/bin/python -m pip install $(TORCHVISION) 'bhvit_seg[pretrain]'
	touch $@

# mmcv is compiled against the torch already there, hence without build isolation; its setup.py
# needs pkg_resources, which newer setuptools no longer have.
$(OPENMMLAB_STAMP): setup.py pyproject.toml $(filter bhvit_seg/%,$(CSRC))
	$(call new_environment,$(OPENMMLAB))
	$(OPENMMLAB_BIN)/python -m pip install 'setuptools<80' wheel
	{ [ -n '$(MMCV_WHEEL)' ] && $(OPENMMLAB_BIN)/python -m pip install '$(MMCV_WHEEL)'; } || \
		MMCV_WITH_OPS=1 $(OPENMMLAB_BIN)/python -m pip install --no-build-isolation mmcv==2.1.0
	$(OPENMMLAB_BIN)/python -m pip install -e '.[openmmlab,test]'
	touch $@

clean:
	rm -rf $(VENV) $(OPENMMLAB) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
