# SPDX-License-Identifier: Apache-2.0
#
# PYTHON=...  the interpreter that the virtual environment is made with
# VENV=...    the virtual environment, for a second one beside .venv
# CC=...      the compiler of the C tests

VENV ?= .venv
export VENV PYTHON
BIN = $(VENV)/bin

.DEFAULT_GOAL = help
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

run: need-run $(VENV)/.built ## run a container from a busybox root file system made on the spot
	@$(BIN)/python tests/demo.py

PYTEST = $(BIN)/pytest
test: need-test $(VENV)/.built c-test ## all tests, the integration tests with each OCI runtime
	$(PYTEST) tests/unit
	$(PYTEST) tests/interop tests/crash
	@$(MAKE) --no-print-directory tsan
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=60
	$(PYTEST) tests/integration --oci-runtime crun -m "not any_runtime"
	$(PYTEST) tests/integration

unit: need-build $(VENV)/.built c-test ## the tests that take seconds and need no root
	$(BIN)/pytest tests/unit

# --- set-up and build ---------------------------------------------------------

NEEDS = need-build need-run need-test need-bench
$(NEEDS): need-%:
	@.ci/bootstrap $*

build: need-build $(VENV)/.built ## the virtual environment and the extension modules in place

# One stamp, written last.  An editable install builds everything anew; for the
# sources alone build_ext does, with --force, because it does not know which
# headers an extension includes.  While pip works the environment is not ready:
# if it is killed, packages may be there in part, and the next run starts afresh.
$(VENV)/.built: pyproject.toml setup.py \
		$(wildcard csrc/*/*.[ch] csrc/*/*.py libpod/*.pyx libpod/*.px[di])
	@echo "== Building the extension modules"
	@$(if $(filter pyproject.toml setup.py,$?), \
		rm $(VENV)/.ready && $(BIN)/python -m pip install -qq --editable '.[dev]' \
			&& touch $(VENV)/.ready, \
		$(BIN)/python setup.py --quiet build_ext --inplace --force)
	@touch $@

# --- C tests: every room of csrc in one archive, each test a program ------------

FLAVOUR ?= plain
C_BUILD = build/c/$(FLAVOUR)
C_FILES = $(wildcard csrc/*/*.[ch] tests/c/*.[ch])
C_FLAGS = -std=gnu11 -D_GNU_SOURCE -iquote csrc -g -O1 -UNDEBUG -DLP_FAILPOINTS -pthread \
	-Wall -Wextra -Wconversion -Wstrict-prototypes -Wshadow -Werror $(C_FLAGS_$(FLAVOUR))
C_FLAGS_asan = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
C_FLAGS_tsan = -fsanitize=thread -fno-omit-frame-pointer
C_OBJECTS = $(patsubst %.c,$(C_BUILD)/%.o,$(wildcard csrc/*/*.c))
C_TESTS = $(patsubst %.c,$(C_BUILD)/%,$(wildcard tests/c/test_*.c))

c-build: $(C_TESTS)

c-test: $(C_TESTS)
	@set -e; for test in $(C_TESTS); do \
		echo "== $$test"; \
		ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 timeout -k 5 300 $$test; \
	done

$(C_TESTS): %: %.o $(C_BUILD)/csrc.a
	@$(CC) $(C_FLAGS) -o $@ $^

$(C_BUILD)/csrc.a: $(C_OBJECTS)
	@rm -f $@
	@$(AR) rcs $@ $^

$(C_BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "$(CC) $<"
	@$(CC) $(C_FLAGS) -MMD -MP -c -o $@ $<

-include $(wildcard $(C_BUILD)/*/*/*.d)

tsan: need-build ## the threaded C tests under the thread sanitizer
	@$(MAKE) --no-print-directory FLAVOUR=tsan C_TESTS=build/c/tsan/tests/c/test_kv_threads c-test

# The sanitizers' Python side lives in a directory of its own: the extension
# modules in the tree stay as users have them.  One test measures memory, which the
# sanitizer keeps back.
ASAN_LIB = build/asan/lib
asan: need-build $(VENV)/.built ## C tests and unit tests under the address, leak and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory FLAVOUR=asan c-test
	@rm -rf build/asan
	@LIBPOD_SANITIZE=address,undefined $(BIN)/python setup.py --quiet build --force \
		--build-lib $(ASAN_LIB) --build-temp build/asan/temp
	@set -e; export PYTHONPATH="$(CURDIR)/$(ASAN_LIB):$(CURDIR)" PYTHONMALLOC=malloc \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
		LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)"; \
	(cd build; $(abspath $(BIN))/python -c \
		'import libpod._spawn as m; assert "$(ASAN_LIB)" in m.__file__, m.__file__'); \
	$(BIN)/pytest -o pythonpath= tests/unit \
		--deselect tests/unit/test_kv_durability.py::test_memory_follows_the_dirty_pages

# --- the store's long runs ---------------------------------------------------------

CRASH_IMAGES ?= 20000
crash: need-test $(VENV)/.built ## power cuts and kills by the thousand; CRASH_IMAGES=...
	KV_CRASH_IMAGES=$(CRASH_IMAGES) KV_CRASH_KILLS=200 \
		$(BIN)/pytest tests/crash -rP --timeout 7200

INTEROP_SECONDS ?= 60
interop: need-test $(VENV)/.built ## the store and the real bbolt on one file, for a minute
	KV_INTEROP_SECONDS=$(INTEROP_SECONDS) KV_INTEROP_TURNS=5000 \
		$(BIN)/pytest tests/interop --timeout 3600

STRESS_SECONDS ?= 60
stress: need-test $(VENV)/.built ## processes at random on one root, by each kind of locks; podman and we in turn; kills at every step
	STRESS_SECONDS=$(STRESS_SECONDS) $(BIN)/pytest tests/integration/test_stress.py --timeout 3600
	STATE_INTEROP_OPERATIONS=400 $(BIN)/pytest tests/interop/test_podman_containers.py --timeout 3600
	LIBPOD_KILLS=all $(BIN)/pytest tests/integration/test_killed.py --oci-runtime crun
	LIBPOD_KILLS=all $(BIN)/pytest tests/integration/test_killed.py --oci-runtime runc

FUZZ_SECONDS ?= 3600
FUZZ_FLAGS = -std=gnu11 -D_GNU_SOURCE -iquote csrc -g -O1 -UNDEBUG -pthread \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
build/fuzz/kv: tests/fuzz/fuzz_kv.c $(wildcard csrc/base/*.[ch] csrc/kv/*.[ch])
	@mkdir -p $(@D)/corpus
	@clang $(FUZZ_FLAGS) -o $@ $< $(wildcard csrc/base/*.c csrc/kv/*.c)

fuzz: need-test $(VENV)/.built build/fuzz/kv ## arbitrary bytes as a database; FUZZ_SECONDS=...
	@$(BIN)/python tests/fuzz/seeds.py build/fuzz/corpus
	build/fuzz/kv -max_total_time=$(FUZZ_SECONDS) -max_len=270000 -timeout=20 \
		-rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix=build/fuzz/ build/fuzz/corpus \
		>build/fuzz/log 2>&1 || { tail -n 60 build/fuzz/log; exit 1; }
	@grep -E "^Done|^stat::number_of_executed_units" build/fuzz/log

# --- quality --------------------------------------------------------------------

lint: need-build $(VENV)/.built c-build ## every check that runs nothing of ours
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest --allowlist .ci/stubtest --ignore-unused-allowlist \
		$(patsubst libpod/%.pyi,libpod.%,$(wildcard libpod/*.pyi))
	PATH="$(BIN):$$PATH" cython-lint libpod/*.pyx libpod/*.px[di]
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)

fmt: need-build $(VENV)/.built ## bring all sources into the format that lint asks for
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(C_FILES)

test-all: need-test ## unit and integration tests on every CPython from 3.10 on that is here
	@set -e; pythons=$$(.ci/pythons); echo "$$pythons" | while read -r version python; do \
		echo "== CPython $$version ($$python)"; \
		$(MAKE) --no-print-directory VENV=.venv-$$version PYTHON="$$python" pytest </dev/null; \
	done

pytest: need-test $(VENV)/.built # apart: a file of each may have the same name
	$(BIN)/pytest tests/unit
	$(BIN)/pytest tests/integration

wheel: need-build $(VENV)/.built ## sdist and wheel in dist/, checked in an environment of their own
	@rm -rf dist
	$(BIN)/pyproject-build
	$(BIN)/python .ci/check_wheel.py dist

BENCH ?= spawn lock launch import kv
bench: need-bench $(VENV)/.built ## our figures beside those of others; BENCH=... chooses
	$(BIN)/python -m bench $(BENCH)

clean: ## remove everything that was made
	rm -rf .venv .venv-* build dist *.egg-info libpod/*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help run test unit build c-build c-test asan tsan lint fmt test-all pytest wheel bench clean crash interop stress fuzz $(NEEDS)
