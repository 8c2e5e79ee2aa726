# SPDX-License-Identifier: Apache-2.0
#
# mod_bosh: `make help` lists the targets.
#
# Everything that is built goes to build/, or to build/SANITIZER with SANITIZE=address|undefined|thread.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
ifneq ($(filter clean,$(MAKECMDGOALS)),)
.NOTPARALLEL: # make -j clean all
endif

SANITIZE ?=
ifneq ($(filter-out address undefined thread,$(SANITIZE)),)
$(error SANITIZE=$(SANITIZE): it is one of address, undefined, thread)
endif

BUILD := build$(if $(SANITIZE),/$(SANITIZE))
OBJ := $(BUILD)/obj
MODULE := $(BUILD)/mod_bosh.so

# --- tools ---------------------------------------------------------------------------------------

CC := $(if $(filter default,$(origin CC)),gcc,$(CC))
CLANG ?= clang
APXS ?= $(firstword $(shell command -v apxs apxs2) apxs)
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
NEED := tests/tools/need.sh
RUN_TESTS := tests/tools/check.sh
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# For a make within a recipe: as many jobs as there are processors, or what the outer make was given.
jobs = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))

# once NAME,COMMAND: runs the command when NAME is used for the first time, and never again.
once = $(eval $(1) := $$(shell $(2)))$($(1))
apxs_cflags = $(call once,apxs_cflags,$(APXS) -q CFLAGS)
apxs_cppflags = $(call once,apxs_cppflags,$(APXS) -q EXTRA_CPPFLAGS)
apxs_include = $(call once,apxs_include,$(APXS) -q INCLUDEDIR)
apr_include = $(call once,apr_include,`$(APXS) -q APR_CONFIG` --includes; `$(APXS) -q APU_CONFIG` --includes)
apr_libs = $(call once,apr_libs,`$(APXS) -q APU_CONFIG` --link-ld; `$(APXS) -q APR_CONFIG` --link-ld --libs)
check_cflags = $(call once,check_cflags,pkg-config --cflags check)
check_libs = $(call once,check_libs,pkg-config --libs check)
need_apxs = $(if $(apxs_include),,$(error $(APXS) does not work: install what the build needs with: make deps))

# --- flags ---------------------------------------------------------------------------------------

WARN := -Wall -Wextra -Werror -Wshadow
SAN_address := -fsanitize=address -O1 -fno-omit-frame-pointer
SAN_undefined := -fsanitize=undefined -fno-sanitize-recover=undefined -O1
SAN_thread := -fsanitize=thread -O1
SAN := $(SAN_$(SANITIZE))
FORTIFY := $(if $(SAN),-U_FORTIFY_SOURCE,-D_FORTIFY_SOURCE=2)

# Headers of the system come in with -isystem: their warnings are not ours.
bosh_cppflags = $(apxs_cppflags) $(FORTIFY) -Iinclude $(patsubst -I%,-isystem %,$(filter-out -I/usr/include,$(apr_include))) $(CPPFLAGS)
bosh_cflags = $(apxs_cflags) -std=gnu99 $(WARN) -fPIC -fvisibility=hidden $(SAN) $(CFLAGS)
httpd_include = -isystem $(apxs_include)
# What the module links, beyond what httpd brings (APR).
LIBS := -lexpat -lssl -lcrypto -lz -lcares -lidn2 -lresolv
LINK := -Wl,-z,relro -Wl,-z,now -Wl,--as-needed

# --- the module ----------------------------------------------------------------------------------

CORE_SRC := $(sort $(wildcard src/core/*.c))
UPSTREAM_SRC := $(sort $(wildcard src/upstream/*.c))
SRC := $(wildcard mod_bosh.c) $(CORE_SRC) $(UPSTREAM_SRC) $(sort $(wildcard src/httpd/*.c)) $(MORE_SRC)
CORE_OBJ := $(CORE_SRC:%.c=$(OBJ)/%.o)
UPSTREAM_OBJ := $(UPSTREAM_SRC:%.c=$(OBJ)/%.o)
MODULE_OBJ := $(SRC:%.c=$(OBJ)/%.o)

.PHONY: all
all: $(MODULE) ## the module (the default)

$(MODULE): $(MODULE_OBJ) Makefile
	$(if $(wildcard mod_bosh.c),,$(error mod_bosh.c is not there))
	@echo "LINK  $@"
	@$(CC) -shared $(SAN) $(LINK) $(LDFLAGS) -o $@.new $(MODULE_OBJ) $(LIBS)
	@nm -D --defined-only $@.new | grep -q ' bosh_module$$' || \
		{ echo "$@: the symbol bosh_module is not exported; httpd could not load it" >&2; exit 1; }
	@mv -f $@.new $@

# The only symbol that httpd must see is in mod_bosh.c; what else is in there is static.
$(OBJ)/mod_bosh.o: VISIBLE := -fvisibility=default
# Only the httpd layer finds httpd's headers: a wrong include does not even compile.
$(OBJ)/mod_bosh.o $(OBJ)/src/httpd/%.o: LAYER_INCLUDE = $(httpd_include)

$(OBJ)/%.o: %.c Makefile
	$(need_apxs)
	@mkdir -p $(@D)
	@echo "CC    $<"
	@$(CC) $(bosh_cppflags) $(LAYER_INCLUDE) $(bosh_cflags) $(VISIBLE) $(UNIT_CFLAGS) -MMD -MP -c -o $@ $<

-include $(patsubst %.o,%.d,$(MODULE_OBJ) $(wildcard $(addprefix $(OBJ)/,tests/*/*.o tests/unit/*/*.o \
	points/src/*/*.o points/tests/unit/*.o points/tests/unit/*/*.o)))

$(OBJ)/points/%.o: %.c Makefile
	$(need_apxs)
	@mkdir -p $(@D)
	@echo "CC    $<"
	@$(CC) $(bosh_cppflags) $(bosh_cflags) -DBOSH_POINTS -Itests/unit $(check_cflags) -MMD -MP -c -o $@ $<

# The module again, with the points at which tests kill a process (bosh_point.h), in $(BUILD)/points.
.PHONY: points
points:
	@$(MAKE) -s --no-print-directory $(jobs) BUILD='$(BUILD)/points' MORE_SRC=tests/points/point.c \
		CPPFLAGS='$(CPPFLAGS) -DBOSH_POINTS' all

# --- unit tests and fuzzing: src/core alone; tests/unit/upstream has src/upstream too ------------
# tests/unit/httpd has what of src/httpd needs no httpd.

NAME ?=
UNIT_SRC := $(sort $(wildcard $(addsuffix test_$(or $(NAME),*).c,tests/unit/ tests/unit/upstream/ tests/unit/httpd/)))
UNIT := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/unit/%)
UNIT_HELP := $(patsubst %.c,$(OBJ)/%.o,$(filter-out tests/unit/test_%,$(wildcard tests/unit/*.c)))
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
REPLAY := $(FUZZ:%=$(BUILD)/fuzz/replay_%)

$(OBJ)/tests/unit/%.o: UNIT_CFLAGS = -Itests/unit $(check_cflags)

.SECONDARY:
$(filter $(BUILD)/unit/upstream/%,$(UNIT)): $(UPSTREAM_OBJ)
$(filter $(BUILD)/unit/httpd/%,$(UNIT)): $(OBJ)/src/httpd/bosh_bell.o
# The model kills sections of the lock at the points of bosh_point.h: it has a core of its own.
MODEL_OBJ := $(patsubst %.c,$(OBJ)/points/%.o,$(CORE_SRC) $(wildcard tests/unit/model/*.c) tests/unit/test_model.c)
$(BUILD)/unit/test_model: $(MODEL_OBJ)
	@mkdir -p $(@D)
	@echo "LINK  $@"
	@$(CC) $(SAN) $(LDFLAGS) -o $@ $^ $(or $(check_libs),-lcheck -lsubunit -lrt -lm) $(apr_libs) $(LIBS) -pthread
$(BUILD)/unit/%: $(OBJ)/tests/unit/%.o $(UNIT_HELP) $(CORE_OBJ)
	@mkdir -p $(@D)
	@echo "LINK  $@"
	@$(CC) $(SAN) $(LDFLAGS) -o $@ $^ $(or $(check_libs),-lcheck -lsubunit -lrt -lm) $(apr_libs) $(LIBS) \
		-pthread

$(BUILD)/fuzz/replay_%: $(OBJ)/tests/fuzz/fuzz_%.o $(OBJ)/tests/fuzz/replay.o $(CORE_OBJ)
	@mkdir -p $(@D)
	@echo "LINK  $@"
	@$(CC) $(SAN) $(LDFLAGS) -o $@ $^ $(apr_libs) $(LIBS)

# Without the second one gcc 12 takes the end of a thread for an error.
export ASAN_OPTIONS ?= detect_stack_use_after_return=1:use_sigaltstack=0
export UBSAN_OPTIONS ?= print_stacktrace=1
export TSAN_OPTIONS ?= halt_on_error=1
# A busy machine is no failure: what hangs is ended late.
export CK_DEFAULT_TIMEOUT ?= 60
ifneq ($(SANITIZE),)
export CK_TIMEOUT_MULTIPLIER ?= 10
endif
export BUILD

.PHONY: unit fuzz-replay fuzz
unit: $(UNIT) ## unit tests of src/core (NAME=window: only test_window.c)
	@$(RUN_TESTS) unit $(UNIT)

fuzz-replay: $(REPLAY) ## feeds the corpus of each fuzzer to it, without a fuzzing engine
	@$(RUN_TESTS) fuzz-replay $(REPLAY)

# --- instructions, counted ------------------------------------------------------------------------

BUDGET := $(BUILD)/budget/script

$(BUDGET): $(OBJ)/tests/budget/script.o $(CORE_OBJ)
	@mkdir -p $(@D)
	@echo "LINK  $@"
	@$(CC) $(SAN) $(LDFLAGS) -o $@ $^ $(apr_libs) $(LIBS)

.PHONY: budget budget-update
ifeq ($(SANITIZE),)
budget: $(BUDGET) ## instructions of the session machine, against those stored (callgrind)
	@$(PYTHON) tests/tools/budget.py $(BUDGET)

budget-update: $(BUDGET) ## stores them: in the commit that changes them
	@$(PYTHON) tests/tools/budget.py $(BUDGET) --update
else
budget budget-update: # what a sanitizer adds is not counted
	@$(MAKE) -s --no-print-directory $(jobs) SANITIZE= $@
endif

TIME ?= 60
fuzz: ## fuzzes with clang: NAME=body TIME=60 (seconds)
	@$(if $(filter $(NAME),$(FUZZ)),,echo "make fuzz NAME=...: one of: $(FUZZ)" >&2; exit 1)
	@$(NEED) build extra
	@mkdir -p build/fuzz/found/$(NAME) tests/fuzz/corpus/$(NAME)
	$(need_apxs)
	$(CLANG) -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -std=gnu99 \
		$(apxs_cppflags) -Iinclude $(apr_include) -o build/fuzz/fuzz_$(NAME) \
		tests/fuzz/fuzz_$(NAME).c $(CORE_SRC) $(apr_libs) $(LIBS)
	build/fuzz/fuzz_$(NAME) -max_total_time=$(TIME) -artifact_prefix=build/fuzz/$(NAME)- \
		$(addprefix -dict=,$(wildcard tests/fuzz/$(NAME).dict)) \
		build/fuzz/found/$(NAME) tests/fuzz/corpus/$(NAME)

# --- measuring -----------------------------------------------------------------------------------

BENCH_SRC := $(filter-out bench/mod_%,$(sort $(wildcard bench/*.c)))
LOAD := build/bench/bosh-load
FLOOR := build/bench/mod_floor.so

$(LOAD): $(BENCH_SRC) $(wildcard bench/*.h) Makefile
	@mkdir -p $(@D)
	@echo "LINK  $@"
	@$(CC) -O2 -g -std=gnu99 -D_GNU_SOURCE $(WARN) -o $@ $(BENCH_SRC)

.PHONY: bench-upstream bench-tls
bench-upstream: $(MODULE) $(LOAD) ## other sessions beside a dead server, and one that floods (QUICK=1, SCENARIO=name)
	@$(E2E_ENV) QUICK='$(QUICK)' SCENARIO='$(or $(SCENARIO),blackhole flood)' $(PYTHON) bench/upstream.py

bench-tls: $(MODULE) $(LOAD) ## CPU time of 1,000 logins over TLS, with and without resumption (QUICK=1)
	@$(E2E_ENV) QUICK='$(QUICK)' SCENARIO=tls $(PYTHON) bench/upstream.py

# The same flags as the module's, never instrumented.
$(FLOOR): bench/mod_floor.c Makefile
	$(need_apxs)
	@mkdir -p $(@D)
	@echo "LINK  $@"
	@$(CC) -shared $(bosh_cppflags) $(httpd_include) $(filter-out $(SAN),$(bosh_cflags)) -fvisibility=default $(LINK) -o $@ $<

.PHONY: bench bench-growth bench-100k bench-restart bench-conf
bench: $(MODULE) $(LOAD) $(FLOOR) ## beside other connection managers and the floor (QUICK=1, ONLY='mod_bosh floor')
	@$(E2E_ENV) QUICK='$(QUICK)' ONLY='$(ONLY)' ROUNDS='$(ROUNDS)' $(PYTHON) bench/bench.py

bench-growth: $(MODULE) $(LOAD) ## what 100 to 20,000 sessions cost at 1, 2, 4 children (QUICK=1)
	@$(E2E_ENV) QUICK='$(QUICK)' $(PYTHON) bench/growth.py

bench-100k: $(MODULE) $(LOAD) ## how many live sessions this machine bears (SESSIONS=100000)
	@$(E2E_ENV) QUICK='$(QUICK)' $(PYTHON) bench/growth.py trial $(SESSIONS)

bench-conf: $(MODULE) $(LOAD) $(FLOOR) ## what lines of the configuration cost or save (QUICK=1, ONLY='ping idle', ROUNDS=5)
	@$(E2E_ENV) QUICK='$(QUICK)' ROUNDS='$(ROUNDS)' $(PYTHON) bench/conf.py $(ONLY)

bench-restart: $(MODULE) $(LOAD) ## what clients notice of restarts and crashes (QUICK=1, SCENARIO=name)
	@$(E2E_ENV) QUICK='$(QUICK)' SCENARIO='$(SCENARIO)' $(PYTHON) bench/restart.py

.PHONY: tsung
tsung: $(MODULE) ## Tsung's BOSH clients against the module and a private Prosody (USERS=400 RATE=20)
	@$(NEED) run tsung
	@$(E2E_ENV) USERS='$(USERS)' RATE='$(RATE)' $(PYTHON) bench/tsung.py

# --- end-to-end tests ----------------------------------------------------------------------------

PYTEST_ARGS ?=
BOSH_MODULE ?= $(abspath $(MODULE))
PRELOAD_address = $(realpath $(shell $(CC) -print-file-name=libasan.so))
PRELOAD_thread = $(realpath $(shell $(CC) -print-file-name=libtsan.so))
E2E_ENV = BOSH_MODULE='$(BOSH_MODULE)' $(if $(SANITIZE),BOSH_SANITIZE=$(SANITIZE)) \
	$(if $(PRELOAD_$(SANITIZE)),BOSH_PRELOAD='$(PRELOAD_$(SANITIZE))')

.PHONY: e2e valgrind-e2e clients
e2e: $(MODULE) points $(LOAD) web clients ## end-to-end tests on a real httpd (PYTEST_ARGS='-k name')
	@$(E2E_ENV) $(RUN_TESTS) e2e $(PYTEST_ARGS)

valgrind-e2e: $(MODULE) $(LOAD) web ## a selection of them with httpd under valgrind
	@$(NEED) extra
	@$(E2E_ENV) BOSH_VALGRIND=1 $(RUN_TESTS) e2e -m valgrind $(PYTEST_ARGS)

# --- everything ----------------------------------------------------------------------------------

.PHONY: deps check lint conformance
deps: ## installs what building, running and testing need
	@$(NEED) build run check npm clients

check: ## all tests: unit, fuzz-replay, lint, e2e, conformance; installs what they need
	@$(RUN_TESTS) all $(NEED) $(MAKE_COMMAND) --no-print-directory -j$(JOBS)

lint: ## layers, format, sizes, cppcheck, lists that must agree
	@$(PYTHON) tests/tools/lint.py

conformance: ## which row of the protocol is proven by which test; rewrites docs/CONFORMANCE.md
	@$(PYTHON) tests/tools/conformance.py $(if $(STRICT),--strict)

# --- the web page, and running it ----------------------------------------------------------------

PORT ?= 8080
STROPHE := node_modules/strophe.js/dist/strophe.umd.min.js

run: export PORT := $(PORT)

.PHONY: web run
web: node_modules/.package-lock.json ## the web page with strophe.js, in build/web
	@mkdir -p build/web
	@cp -Rp web/. build/web/
	@cp -p $(STROPHE) build/web/
	@cd build/web && find . -type f ! -name strophe.umd.min.js | while read -r f; do \
		[ -e "$(CURDIR)/web/$$f" ] || rm -f "$$f"; done

node_modules/.package-lock.json: package-lock.json
	@$(NEED) npm

clients: tests/clients/node_modules/.package-lock.json
tests/clients/node_modules/.package-lock.json: tests/clients/package-lock.json
	@$(NEED) clients

run: ## a chat server with the web page on this machine (PORT=8080)
	@$(NEED) build run npm
	@$(MAKE) -s --no-print-directory $(jobs) SANITIZE= all web
	@exec tests/tools/run.sh

# --- installing ----------------------------------------------------------------------------------

prefix ?= /usr
datadir ?= $(prefix)/share
LIBEXECDIR = $(call once,LIBEXECDIR,$(APXS) -q LIBEXECDIR)
SYSCONFDIR = $(call once,SYSCONFDIR,$(APXS) -q SYSCONFDIR)
INSTALL_ENV = DESTDIR='$(DESTDIR)' LIBEXECDIR='$(LIBEXECDIR)' SYSCONFDIR='$(SYSCONFDIR)' DATADIR='$(datadir)' \
	FORCE='$(FORCE)'

.PHONY: install uninstall clean help
install: $(MODULE) ## the module, its configuration and the page (DESTDIR, prefix, FORCE=1)
	$(need_apxs)
	@$(INSTALL_ENV) tests/tools/install.sh install $(MODULE)

uninstall: ## removes what install put there, and leaves an edited bosh.conf
	$(need_apxs)
	@$(INSTALL_ENV) tests/tools/install.sh uninstall

clean: ## removes build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | sort | while IFS="$$(printf '\t')" read -r t d; do \
		printf '  make %-14s %s\n' "$$t" "$$d"; done
	@echo '  SANITIZE=address|undefined|thread   with any of them: builds apart, in build/SANITIZER'
