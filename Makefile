# Everything a contributor runs. `make demo` and `make test` set up by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILT := pyproject.toml $(shell find native -type f)
SOURCES := $(BUILT) $(shell find edgecal -type f -not -path '*/__pycache__/*' -not -name '*.so')
BASE := models/edgecal-tiny-base-Q8_0.gguf
CHAT := models/edgecal-tiny-chat-Q8_0.gguf
COMPARISON := build/comparison
# Names in tests/tools/real_models.py, whose models `make test-real` fetches and tests with.
REAL := smollm2,gemma,qwen-0.5b,qwen-1.5b
# Where `make pairs` puts the benchmark's pairs; a pair that is there is not made again. ONLY=NAME,... makes some.
PAIRS := bench/pairs
DEMO_OUTPUT := build/demo/edgecal-tiny-chat.calibrated.gguf

# The files of tests are shared out among processes, one for each core; more than four would need much memory.
PYTEST := pytest -n auto --maxprocesses 4 --dist loadfile

# llama.cpp is by far the slowest part of the set-up. Its multimodal library and its library for command-line programs
# are left out, since edgecal uses neither; what it does use is compiled with the same flags as ever. (On Windows a
# path in the middle of a variable is not translated for CMake.) Where there is no ninja, make compiles, and only one
# file at a time unless it is told how many.
ifneq ($(OS),Windows_NT)
LESS := '-DCMAKE_PROJECT_llama_cpp_INCLUDE=$(CURDIR)/native/llama_cpp_options.cmake'
endif
export CMAKE_ARGS := -DLLAVA_BUILD=OFF $(LESS) $(CMAKE_ARGS)
ifndef CMAKE_BUILD_PARALLEL_LEVEL
export CMAKE_BUILD_PARALLEL_LEVEL := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
endif

.PHONY: help dev demo test test-oldest test-real test-llama-server test-tools zoo real-report lint bench compare pair pairs native-asan clean

help:
	@echo "make demo         fit the bundled pair of models and show the result"
	@echo "make test         run all tests; TESTS=tests/gguf runs some"
	@echo "make dev          set up so that an edit of edgecal/*.py needs no reinstallation"
	@echo "make test-oldest  run all tests on the oldest supported dependencies"
	@echo "make test-real    run the tests on real models, which it fetches (2 GB; REAL=smollm2,gemma: 350 MB)"
	@echo "make test-llama-server  exported files in llama.cpp's decision mode (SmolLM2, Qwen2.5 Coder 0.5B; long)"
	@echo "make test-tools   what the real llama.cpp programs do with our files (builds them, 10 to 20 minutes)"
	@echo "make zoo          llama.cpp's own test models of all architectures; docs/architectures.md (20 to 40 minutes)"
	@echo "make real-report  what edgecal does with real models; docs/real.md (10 to 20 minutes)"
	@echo "make lint         ruff and mypy"
	@echo "make bench        benchmarks against peers, as ratios"
	@echo "make compare      every method on the bundled pair's questions, and a report"
	@echo "make pair         train the bundled pair again (under an hour on 2 cores)"
	@echo "make pairs        make the benchmark's pairs that are not stored; PAIRS=DIR makes them all again (hours)"
	@echo "make native-asan  the native hook's test under AddressSanitizer"
	@echo "make clean        remove the virtual environment and everything built"

demo: $(VENV)/.installed
	@mkdir -p $(dir $(DEMO_OUTPUT))
	$(BIN)/edgecal fit $(BASE) $(CHAT) --data models/questions/unlabelled.jsonl --output $(DEMO_OUTPUT) --force
	$(BIN)/edgecal show $(DEMO_OUTPUT)

# From then on until `make clean`, what is installed is the source tree itself.
dev: $(VENV)/.created
	@test -f $(VENV)/.editable || rm -f $(VENV)/.installed $(VENV)/.installed-dev
	@touch $(VENV)/.editable
	@$(MAKE) --no-print-directory $(VENV)/.installed-dev

test: $(VENV)/.installed-dev
	$(BIN)/$(PYTEST) $(TESTS)

test-oldest: $(VENV)-oldest/.installed-dev
	$(VENV)-oldest/bin/$(PYTEST) $(TESTS)

test-real: $(VENV)/.installed-dev
	$(BIN)/python tests/tools/real_models.py --only $(REAL) --optional
	EDGECAL_REAL=$(REAL) $(BIN)/pytest tests/real

# Long: each request's logits are asked of the server for the whole vocabulary.
test-llama-server: $(VENV)/.installed-dev
	$(BIN)/python tests/tools/real_models.py --only smollm2,qwen-0.5b --optional
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement tests/llama_server.txt
	EDGECAL_REAL=smollm2,qwen-0.5b EDGECAL_LLAMA_SERVER=1 $(BIN)/pytest tests/real/test_real_llama_decision.py

test-tools: $(VENV)/.installed-dev
	$(BIN)/python tests/tools/run.py

zoo: $(VENV)/.installed-dev
	$(BIN)/python tests/tools/zoo.py --output docs/architectures.md

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

real-report: $(VENV)/.installed-dev
	$(BIN)/python tests/tools/real_report.py --output docs/real.md

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/run.py

compare: $(VENV)/.installed
	@mkdir -p $(COMPARISON)
	$(BIN)/edgecal compare $(BASE) $(CHAT) --data models/questions/test.jsonl --markdown \
	  --report $(COMPARISON)/report.html > $(COMPARISON)/comparison.md
	@cat $(COMPARISON)/comparison.md

pair: $(VENV)/.installed-train
	$(BIN)/python models/make_pair.py --seed 0 --output models/build

pairs: $(VENV)/.installed-train
	$(BIN)/python models/factory/make_pairs.py --output $(PAIRS) $(if $(ONLY),--only $(ONLY))

native-asan: $(VENV)/.installed-dev
	native/asan.sh

clean:
	rm -rf $(VENV) $(VENV)-oldest build models/build .mypy_cache .pytest_cache .ruff_cache

# The environment: a virtual environment, then edgecal with what it depends on.

%/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "edgecal needs Python 3.10 or newer, this is $$($(PYTHON) --version 2>&1); set PYTHON=..."; exit 2; }
	@command -v $${CC:-cc} >/dev/null && command -v $${CXX:-c++} >/dev/null \
	  || { echo "edgecal needs a C and a C++ compiler; docs/guide.md says how to get them"; exit 2; }
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --upgrade pip
	@touch $@

# $(call install,ENVIRONMENT,EXTRAS)
define install
	@$(1)/bin/python -c 'import llama_cpp' 2>/dev/null || { \
	  echo "Installing edgecal and llama.cpp. llama.cpp is compiled the first time, which takes 2 to 5 minutes on"; \
	  echo "2 cores and prints nothing meanwhile; pip keeps the result for later."; }
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) \
	  $(if $(wildcard $(1)/.editable),--editable) ".$(2)"
endef

# What makes an environment old: any file of the package, or after `make dev` only what is compiled or declares dependencies.
.SECONDEXPANSION:
sources = $(if $(wildcard $(1)/.editable),$(BUILT),$(SOURCES))

%/.installed: %/.created $$(call sources,$$*)
	$(call install,$*,)
	@touch $@

%/.installed-dev: %/.created $$(call sources,$$*)
	$(call install,$*,[dev])
	@touch $@ $*/.installed

%/.installed-train: %/.created $$(call sources,$$*)
	$(call install,$*,[train])
	@touch $@ $*/.installed

$(VENV)-oldest/.installed-dev: CONSTRAINTS = --constraint tests/oldest.txt

.PRECIOUS: %/.created %/.installed %/.installed-dev %/.installed-train
